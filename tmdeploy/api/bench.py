"""`tmdeploy.bench`: how fast, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Checkpoint, FilePath, as_tuple, checkpoint_options
from tmdeploy.api.schedules import ForEach, Several, asked_for
from tmdeploy.errors import UsageError
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.report.schemas.bench import BenchReport


def bench(
    model: FilePath | Sequence[FilePath],
    *,
    batch: int | Sequence[int] | None = None,
    r: Several | None = None,
    keep: Several | None = None,
    schedule: Several | None = None,
    data: FilePath | Sequence[FilePath] = (),
    warm_up: float = 0.2,
    duration: float = 3.0,
    iterations: int = 20,
    rounds: int = 5,
    percentile: float | Sequence[float] = (50.0, 90.0, 99.0),
    twin: bool = True,
    free_merge: bool = False,
    min_speedup: float | None = None,
    max_ratio: float | None = None,
    memory: bool = True,
    cuda_graph: bool | None = None,
    transfers: bool | None = None,
    device: str = "auto",
    backend: str | Sequence[str] | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    **checkpoint: Unpack[Checkpoint],
) -> BenchReport:
    """Time models side by side in interleaved rounds, each against its own unmerged twin.

        report = tmdeploy.bench(["deit_s.onnx", "deit_small.pth"], batch=[1, 8])

    Args:
        model: Models: `.onnx`, checkpoints and engines.
        batch: Batch sizes, one table each; None is 1 and 8, as far as every model takes them.
        r: Tokens to merge per block: 13, "26:0", [8, 8, 4]; a list of texts or lists is one run each.
        keep: Patch tokens to keep per step: 0.7, [138, 97, 68]; likewise.
        schedule: Either of the two, whichever a model takes.
        data: Images to time on; none takes seeded random ones.
        warm_up: Seconds, at least; then until times agree.
        duration: Measured seconds of each arm, at least.
        iterations: Measured calls of each arm, at least.
        rounds: Interleaved rounds.
        percentile: Percentiles to report.
        twin: Also time each model without its reduction.
        free_merge: Also time each exported file with a slice instead of each reduction.
        min_speedup: What merged arms have to meet: this many times as fast as their unmerged twins.
        max_ratio: The same the other way round: their time over the twins', at most.
        memory: Measure load time and peak memory.
        cuda_graph: Launch an engine's work as one CUDA graph; None times both ways, an arm each.
        transfers: Copy images and logits in each call of an engine; None times both ways, an arm each.
        device: Device of checkpoints: `cpu`, `cuda`, `cuda:1`; `auto` takes a GPU that another arm runs on.
        backend: Run an `.onnx`, one arm each; None takes the default.
        threads: Threads of every backend; None leaves each its default.
        progress: Called when a stage begins.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Returns:
        The report. `report.gate` has one row for every arm that `min_speedup` or `max_ratio` judges.

    Raises:
        UsageError: An option that cannot be meant, or models that take different images.
        ArtifactError, CheckpointError: A model cannot be read.
        EnvironmentMissing: A package that a model needs is not installed.
    """
    from tmdeploy.bench.arm import engine_modes
    from tmdeploy.bench.gate import Gate
    from tmdeploy.bench.run import bench as run
    from tmdeploy.bench.timing import Protocol

    models = [Path(path) for path in as_tuple(model)]
    if not models:
        raise UsageError("nothing to time", remedy="Name models, or engines with --engine")
    protocol = Protocol(
        warm_up_s=warm_up,
        duration_s=duration,
        iterations=iterations,
        rounds=rounds,
        percentiles=as_tuple(percentile),
    )
    wanted = ForEach(asked_for(r, keep, schedule))
    return run(
        models,
        batch_sizes=None if batch is None else as_tuple(batch),
        protocol=protocol,
        backends=(None,) if backend is None else as_tuple(backend),
        threads=threads,
        data=[str(source) for source in as_tuple(data)],
        schedules=wanted,
        gate=Gate(min_speedup, max_ratio),
        check=lambda _: wanted.check(),
        twin=twin,
        free_merge=free_merge,
        memory=memory,
        checkpoint=checkpoint_options(checkpoint, device=device),
        modes=engine_modes(cuda_graph, transfers),
        progress=progress,
    )
