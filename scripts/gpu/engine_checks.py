"""The tool's own commands on this GPU, as a user would type them: engines, and ONNX Runtime's GPU providers.

What is not installed is reported, not failed: a machine may have either TensorRT, both or neither.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from .build import ROOT
from .tally import Tally

_LIMIT_S = 240.0
_NOT_HERE = 3  # exit code: something is not installed, or there is no GPU
_TAIL = 4  # lines of a failed command that are kept
_QUICK = ("--duration", "500ms", "--iterations", "20", "--rounds", "3")
_FULL = ("--duration", "1s", "--iterations", "50", "--rounds", "5")
RANGE = "0:13:16"


@dataclass(frozen=True)
class Step:
    """One command: its name in the result, its arguments, and whether it writes JSON (which is kept)."""

    name: str
    arguments: tuple[str, ...]
    document: bool = True


def preparation(work: Path) -> tuple[Step, ...]:
    """Files that the others need: DeiT-S unmerged and with ToMe."""
    checkpoint = str(work / "deit_s.pth")
    export = ("export", checkpoint, "--arch", "deit_small_patch16_224")
    return (
        Step("doctor", ("doctor",)),
        Step("export tome", (*export, "--method", "tome", "--r", "13", "-o", str(work / "tome.onnx"))),
        Step("export unmerged", (*export, "--method", "none", "-o", str(work / "none.onnx"))),
    )


def engine_steps(work: Path, flavor: str, *, quick: bool) -> tuple[Step, ...]:
    """Build, validate, inspect with layer times, and bench; of one TensorRT.

    Args:
        work: Folder with the files of `preparation`.
        flavor: `rtx` or `tensorrt`.
        quick: Fewer engines, shorter measurements.
    """
    steps = []
    for precision in ("fp16",) if quick else ("fp32", "fp16"):
        plans = {name: str(work / f"{name}.{flavor}.{precision}.plan") for name in ("tome", "none")}
        for name, plan in plans.items():
            ranged = ("--schedule-range", RANGE) if name == "tome" else ()
            build = ("build", str(work / f"{name}.onnx"), "-o", plan, "--flavor", flavor, "--precision", precision)
            title = f"{flavor} {precision} {name}"
            steps.append(Step(f"build {title}", (*build, "--profile", "1:8:32", *ranged)))
            steps.append(Step(f"validate {title}", ("validate", str(work / f"{name}.onnx"), plan)))
            steps.append(Step(f"inspect {title}", ("inspect", plan, "--profile", "--batch", "8")))
        both = [part for plan in plans.values() for part in ("--engine", plan)]
        bench = ("bench", *both, str(work / "deit_s.pth"), "--device", "cuda", "--batch", "1,8,32")
        steps.append(Step(f"bench {flavor} {precision}", (*bench, *(_QUICK if quick else _FULL))))
    return tuple(steps)


def provider_steps(work: Path, backend: str, *, quick: bool) -> tuple[Step, ...]:
    """Validate and bench with one of ONNX Runtime's GPU providers."""
    model, options = str(work / "tome.onnx"), _QUICK if quick else _FULL
    return (
        Step(f"validate {backend}", ("validate", model, model, "--backend", backend)),
        Step(f"bench {backend}", ("bench", model, "--backend", backend, "--batch", "1,8", *options)),
    )


def check_engines(work: Path, tally: Tally, *, quick: bool) -> list[dict[str, Any]]:
    """Run everything that can run here.

    Args:
        work: An empty folder.
        tally: Counts the commands.
        quick: Fewer engines, shorter measurements.

    Returns:
        A record of each command: name, arguments, exit code (None: not tried), seconds, what it wrote.
    """
    from benchmarks.deit_s import make_checkpoint

    make_checkpoint(work / "deit_s.pth")
    records = [_run(step, work, tally) for step in preparation(work)]
    if any(record["rc"] for record in records[1:]):
        return records
    for flavor in ("rtx", "tensorrt"):
        records += _run_all(engine_steps(work, flavor, quick=quick), work, tally)
    for backend in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        records += _run_all(provider_steps(work, backend, quick=quick), work, tally)
    return records


def _run_all(steps: tuple[Step, ...], work: Path, tally: Tally) -> list[dict[str, Any]]:
    """All of them, unless the first says that something is not installed here."""
    first = _run(steps[0], work, tally)
    if first["rc"] == _NOT_HERE:
        return [first]
    return [first, *(_run(step, work, tally) for step in steps[1:])]


def _run(step: Step, work: Path, tally: Tally) -> dict[str, Any]:
    target = work / "document.json"
    target.unlink(missing_ok=True)
    arguments = [*step.arguments, *(("--json", str(target)) if step.document else ())]
    command = [sys.executable, "-c", "import cli; cli.main()", *arguments]
    start = perf_counter()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT_S, check=False)  # noqa: S603 - the project's own
        code, said = done.returncode, done.stderr.strip().splitlines()[-_TAIL:]
    except subprocess.TimeoutExpired:
        code, said = 124, [f"no end after {_LIMIT_S:.0f} s"]
    seconds = round(perf_counter() - start, 2)
    missing = code == _NOT_HERE
    if not missing:
        tally.check(code == 0, f"{step.name}: exit code {code}: {' / '.join(said)}")
    print(f"{step.name}: {'not here' if missing else f'exit code {code}'}, {seconds:.1f} s", file=sys.stderr)
    document = json.loads(target.read_text()) if code in {0, 1} and target.is_file() else None
    return {
        "name": step.name,
        "arguments": list(step.arguments),
        "rc": code,
        "seconds": seconds,
        "said": said if code else [],
        "document": document,
    }
