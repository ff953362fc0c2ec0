"""Peak memory of one model, honestly: a fresh process loads it, runs it, and says what the system counted.

python -m tmdeploy.bench.memory MODEL BATCH THREADS     prints one JSON line
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Footprint:
    """What a fresh process needed.

    Attributes:
        baseline_mib: Resident memory before the model was opened, its backend's packages imported.
        peak_mib: Peak resident memory after a few batches.
        load_ms: Opening the model.
    """

    baseline_mib: float
    peak_mib: float
    load_ms: float

    @property
    def model_mib(self) -> float:
        """What the model added."""
        return self.peak_mib - self.baseline_mib


def footprint(path: Path, *, batch: int, threads: int | None, trust_checkpoint: bool = False) -> Footprint | None:
    """Measure in a fresh process; None where that fails (the reason is on stderr)."""
    command = [sys.executable, "-m", "tmdeploy.bench.memory", str(path), str(batch), str(threads or 0)]
    command += ["trust"] if trust_checkpoint else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        return None
    return Footprint(**json.loads(done.stdout))


def main(arguments: list[str]) -> None:
    """Entry point of the measuring process."""
    path, batch, threads = Path(arguments[0]), int(arguments[1]), int(arguments[2]) or None
    from tmdeploy.backends import backend_for, open_runner

    options: dict[str, object] = {}
    if backend_for(path).name == "pytorch":
        import tmdeploy.models.checkpoint
        import tmdeploy.patching  # noqa: F401 - imports belong to the baseline

        options["trust_checkpoint"] = "trust" in arguments[3:]
    else:
        import onnxruntime  # noqa: F401
    before = _peak_mib()
    runner = open_runner(path, threads=threads, **options)
    height, width = runner.preprocessing.image_size
    shape = (batch, height, width, 3) if runner.pixels_in else (batch, 3, height, width)
    images = np.zeros(shape, np.uint8 if runner.pixels_in else np.float32)
    for _ in range(3):
        runner.infer(images)
    sys.stdout.write(
        json.dumps({"baseline_mib": before, "peak_mib": _peak_mib(), "load_ms": runner.load_seconds * 1e3}) + "\n"
    )


def _peak_mib() -> float:
    """Peak resident memory. Linux's ru_maxrss starts from the parent's, so VmHWM is read where there is one."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
