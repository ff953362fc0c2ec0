"""Peak memory of one model, honestly: a fresh process loads it, runs it, and says what the system counted.

That process runs `main(JOB)`, JOB being a `Job` as JSON, and prints a `Footprint` as one line of JSON.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from tmdeploy.backends.base import load_runtime, open_runner
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.errors import ArtifactError
from tmdeploy.system.child import last_words, run_python
from tmdeploy.tensorrt.run.memory import EngineMemory

_CHILD = "import sys; from tmdeploy.bench.memory import main; main(sys.argv[1])"
_CALLS = 3  # arenas have grown to their full size after the second
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Job:
    """What to load and run: a model, on one batch, at its default schedule."""

    path: Path
    batch: int
    threads: int | None = None
    checkpoint: CheckpointOptions | None = None  # None: no checkpoint
    backend: str | None = None  # of an exported file; None: the suffix's default


@dataclass(frozen=True)
class GpuFootprint:
    """What an engine needs on the GPU, bytes.

    Attributes:
        stated: What TensorRT says.
        loaded: By how much cudaMemGetInfo's free memory fell while the engine was loaded, with its buffers. Any other
            process on the GPU is counted, too.
        running: The same, until after a few calls.
    """

    stated: EngineMemory
    loaded: int
    running: int


@dataclass(frozen=True)
class Footprint:
    """What a fresh process needed.

    Attributes:
        baseline_mib: Resident memory before the model was opened, its backend's packages imported.
        peak_mib: Peak resident memory after a few batches.
        load_ms: Opening the model.
        gpu: GPU memory of an engine; None for anything else.
    """

    baseline_mib: float
    peak_mib: float
    load_ms: float
    gpu: GpuFootprint | None = None

    @property
    def model_mib(self) -> float:
        """What the model added."""
        return self.peak_mib - self.baseline_mib


def footprint(job: Job) -> Footprint:
    """Measure in a fresh process.

    Raises:
        ArtifactError: That process failed; the message ends with the last line it wrote.
    """
    text = TypeAdapter(Job).dump_json(job).decode()
    try:
        done = run_python(_CHILD, text, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"its memory was not measured (no answer in {_TIMEOUT_S} s)", path=job.path) from None
    if done.returncode != 0:
        raise ArtifactError(f"its memory was not measured ({last_words(done)})", path=job.path)
    return TypeAdapter(Footprint).validate_json(done.stdout)


def main(text: str) -> None:
    """Entry point of the measuring process."""
    job = TypeAdapter(Job).validate_json(text)
    free = load_runtime(job.path, backend=job.backend)
    options = {} if job.checkpoint is None else job.checkpoint.keywords()
    at_first = 0 if free is None else free()
    before = _memory_mib("VmRSS")
    with open_runner(job.path, threads=job.threads, backend=job.backend, **options) as runner:
        loaded = 0 if free is None else at_first - free()
        height, width = runner.preprocessing.image_size
        if runner.pixels_in:
            images = np.zeros((job.batch, height, width, 3), np.uint8)
        else:
            images = np.zeros((job.batch, 3, height, width), np.float32)
        for _ in range(_CALLS):
            runner.infer(images)
        gpu = None
        if free is not None and runner.engine is not None:
            gpu = GpuFootprint(runner.engine.memory(), loaded, running=at_first - free())
        found = Footprint(before, _memory_mib("VmHWM"), runner.load_seconds * 1e3, gpu)
    print(TypeAdapter(Footprint).dump_json(found).decode())  # noqa: T201 - the answer


def _memory_mib(field: str) -> float:
    """VmRSS (resident now) or VmHWM (its peak) of this process.

    Not getrusage's ru_maxrss where /proc has the answer: Linux carries that over exec, so a child of a process that
    holds other models would report the parent's memory as its own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(rf"^{field}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    import psutil

    counted = psutil.Process().memory_info()
    if field == "VmRSS":
        return float(counted.rss) / 2**20
    if hasattr(counted, "peak_wset"):  # Windows
        return float(counted.peak_wset) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS
