"""`tmdeploy bench`: how fast, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .backend_option import BackendsOption, backend_names
from .console import (
    ArchOption,
    AssumeOption,
    EmaOption,
    IgnoreExtraOption,
    JsonOption,
    NumHeadsOption,
    Output,
    ThreadsOption,
    TrustOption,
    progress,
)
from .native_option import NativeOption, TrustEngineOption
from .numbers import batch_sizes, percentiles, seconds
from .schedule_option import ForEach, KeepsOption, RsOption, SchedulesOption, asked_for
from .timeout_option import TimeoutOption


def bench(
    model: Annotated[
        list[Path] | None, typer.Argument(help="Models: .onnx, checkpoints and engines.", show_default=False)
    ] = None,
    engine: Annotated[
        list[Path] | None, typer.Option("--engine", help="Engines to time beside them: .plan. Repeatable.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES", help="Batch sizes, one table each. Default: 1,8, as far as every model takes them."
        ),
    ] = None,
    r: RsOption = None,
    keep: KeepsOption = None,
    schedule: SchedulesOption = None,
    data: Annotated[list[str] | None, typer.Option(help="Images to time on. Default: seeded random ones.")] = None,
    warm_up: Annotated[str, typer.Option(help="At least this long, then until times agree: 200ms, 1s.")] = "200ms",
    duration: Annotated[str, typer.Option(help="Measured time of each arm, at least.")] = "3s",
    iterations: Annotated[int, typer.Option(min=1, help="Measured calls of each arm, at least.")] = 20,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.")] = 5,
    percentile: Annotated[str, typer.Option(help="Percentiles to report.")] = "50,90,99",
    twin: Annotated[bool, typer.Option("--twin/--no-twin", help="Also time each model without its reduction.")] = True,
    free_merge: Annotated[
        bool, typer.Option("--free-merge", help="Also time each exported file with a slice instead of each reduction.")
    ] = False,
    min_speedup: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR", help="Exit code 1 if a merged arm is not so many times as fast as its unmerged twin: 1.3."
        ),
    ] = None,
    max_ratio: Annotated[
        float | None,
        typer.Option(metavar="RATIO", help="The same the other way round: its time over the twin's, at most: 0.77."),
    ] = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure load time and peak memory.")] = True,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graph/--no-cuda-graph",
            help="Engines: launch the work as one CUDA graph, or kernel by kernel. Default: both, an arm each.",
            show_default=False,
        ),
    ] = None,
    transfers: Annotated[
        bool | None,
        typer.Option(
            "--transfers/--no-transfers",
            help="Engines: copy images and logits in each call, or keep them on the GPU. Default: both, an arm each.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="Of checkpoints: cpu, cuda, cuda:N. auto is the GPU if another arm runs on it and torch sees it.",
        ),
    ] = "auto",
    arch: ArchOption = None,
    num_heads: NumHeadsOption = None,
    assume: AssumeOption = None,
    ema: EmaOption = False,
    ignore_extra: IgnoreExtraOption = False,
    backend: BackendsOption = None,
    threads: ThreadsOption = None,
    timeout: TimeoutOption = None,
    native: NativeOption = True,
    trust_engine: TrustEngineOption = False,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Time models side by side in interleaved rounds, each against its own unmerged twin.

    tmdeploy bench deit_s.onnx deit_small.pth --batch 1,8

    tmdeploy bench --engine deit_s.plan --engine deit_s_none.plan deit_small.pth
    """
    from tmdeploy.backends.options import CheckpointOptions
    from tmdeploy.bench.arm import engine_modes
    from tmdeploy.bench.gate import Gate, failures
    from tmdeploy.bench.run import bench as run
    from tmdeploy.bench.timing import Protocol
    from tmdeploy.errors import CheckFailed, UsageError
    from tmdeploy.report.tables.bench import print_bench

    models = [*(model or ()), *(engine or ())]
    if not models:
        raise UsageError("nothing to time", remedy="Name models, or engines with --engine")
    out = Output(json, reads=[*models, *(data or ())])
    protocol = Protocol(
        warm_up_s=seconds(warm_up, "--warm-up"),
        duration_s=seconds(duration, "--duration"),
        iterations=iterations,
        rounds=rounds,
        percentiles=percentiles(percentile),
    )
    wanted = ForEach(asked_for(r, keep, schedule))
    with progress() as tell:
        report = run(
            models,
            batch_sizes=None if batch is None else batch_sizes(batch),
            protocol=protocol,
            backends=backend_names(backend),
            threads=threads,
            data=data or [],
            schedules=wanted,
            gate=Gate(min_speedup, max_ratio),
            check=lambda _: wanted.check(),
            twin=twin,
            free_merge=free_merge,
            memory=memory,
            checkpoint=CheckpointOptions(
                arch=arch,
                num_heads=num_heads,
                assume=tuple(assume or ()),
                ema=ema,
                ignore_extra=ignore_extra,
                trust_checkpoint=trust_checkpoint,
                device=device,
            ),
            modes=engine_modes(cuda_graph, transfers),
            progress=tell,
        )
    print_bench(report, out.console)
    out.emit(report)
    if problem := failures(report.gate):
        raise CheckFailed(problem)
