"""`tmdeploy validate`: does the candidate compute what the reference computes?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .backend_option import CandidateOption
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
    warn_notes,
    warn_skipped,
)
from .native_option import NativeOption, TrustEngineOption
from .numbers import MOST_IMAGES, batch_sizes
from .schedule_option import KeepsOption, RsOption, SchedulesOption, amounts_of, asked_for, reducer
from .timeout_option import TimeoutOption


def validate(
    reference: Annotated[Path, typer.Argument(help="What is right: a checkpoint or an .onnx.", show_default=False)],
    candidate: Annotated[
        Path, typer.Argument(help="What is judged: an .onnx, a checkpoint or an engine.", show_default=False)
    ],
    data: Annotated[
        list[str] | None, typer.Option(help="Images: a file, folder or glob. Repeatable. Default: random images.")
    ] = None,
    random: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="How many random images without --data.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many images of --data.")] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes to compare at.")] = "1,8",
    r: RsOption = None,
    keep: KeepsOption = None,
    schedule: SchedulesOption = None,
    atol: Annotated[float | None, typer.Option(help="Logits error where plans agree (fp32: 1e-4).")] = None,
    op_rtol: Annotated[float | None, typer.Option(help="Error of an op on the same inputs (fp32: 1e-5).")] = None,
    tie_gap: Annotated[float | None, typer.Option(help="Largest gap of a near-tie (fp32: 1e-5).")] = None,
    max_ties: Annotated[
        float | None, typer.Option(help="Largest share of near-ties (fp32: 0.05; fp16: 0.5; bf16, int8, fp8: 1).")
    ] = None,
    min_top1_agreement: Annotated[
        float | None, typer.Option(help="Where plans agree (0.995; of a quantised file 0.98).")
    ] = None,
    min_p: Annotated[float, typer.Option(help="McNemar p-value below which an accuracy drop fails.")] = 0.05,
    arch: ArchOption = None,
    num_heads: NumHeadsOption = None,
    assume: AssumeOption = None,
    ema: EmaOption = False,
    ignore_extra: IgnoreExtraOption = False,
    backend: CandidateOption = None,
    threads: ThreadsOption = None,
    timeout: TimeoutOption = None,
    native: NativeOption = True,
    trust_engine: TrustEngineOption = False,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Compare two models level by level: ops on the same inputs, decisions, logits, accuracy. Exit code 1 if any fails.

    tmdeploy validate deit_small.pth deit_s.onnx --data photos/
    """
    from tmdeploy.backends.options import CheckpointOptions
    from tmdeploy.backends.pairing import open_pair, sample_source
    from tmdeploy.errors import CheckFailed
    from tmdeploy.report.tables.validation import print_validation
    from tmdeploy.validate import Limits
    from tmdeploy.validate import validate as run

    out = Output(json, reads=[reference, candidate, *(data or ())])
    sizes = batch_sizes(batch)
    with progress() as tell:
        tell("loading the models")
        with open_pair(
            reference,
            candidate,
            threads=threads,
            checkpoint=CheckpointOptions(
                arch=arch,
                num_heads=num_heads,
                assume=tuple(assume or ()),
                ema=ema,
                ignore_extra=ignore_extra,
                trust_checkpoint=trust_checkpoint,
            ),
            backend=backend,
        ) as (ours, theirs):
            for opened in (ours, theirs):
                warn_notes(opened)
            tell("reading the images")
            samples = sample_source(ours, theirs, data or [], random=random, limit=limit)
            wanted = asked_for(r, keep, schedule)
            schedules = [amounts_of(asked, reducer(theirs)) for asked in wanted] or [None]
            report = run(
                ours,
                theirs,
                samples,
                batch_sizes=sizes,
                schedules=schedules,
                limits=Limits(atol, op_rtol, tie_gap, None, max_ties, min_top1_agreement, min_p),
                progress=tell,
            )
    print_validation(report, out.console)
    warn_skipped(report.skipped_images, read=report.images)
    out.emit(report)
    if not report.passed:
        failed = [f"{check.level}: {check.name}" for check in report.checks if not check.passed]
        raise CheckFailed(f"{candidate} failed {len(failed)} check(s): {', '.join(failed)}")
