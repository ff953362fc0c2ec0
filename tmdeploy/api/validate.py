"""`tmdeploy.validate`: does the candidate compute what the reference computes?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Checkpoint, FilePath, as_tuple, checkpoint_options, warn_notes
from tmdeploy.api.schedules import Several, amounts_of, asked_for, reducer
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.report.schemas.validation import ValidationReport


def validate(
    reference: FilePath,
    candidate: FilePath,
    *,
    data: FilePath | Sequence[FilePath] = (),
    random: int = 16,
    limit: int | None = None,
    batch: int | Sequence[int] = (1, 8),
    r: Several | None = None,
    keep: Several | None = None,
    schedule: Several | None = None,
    atol: float | None = None,
    op_rtol: float | None = None,
    tie_gap: float | None = None,
    max_ties: float | None = None,
    min_top1_agreement: float | None = None,
    min_p: float = 0.05,
    backend: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    **checkpoint: Unpack[Checkpoint],
) -> ValidationReport:
    """Compare two models level by level: ops on the same inputs, decisions, logits, accuracy.

        report = tmdeploy.validate("deit_small.pth", "deit_s.onnx", data="photos/")
        assert report.passed

    Args:
        reference: What is right: a checkpoint or an `.onnx`.
        candidate: What is judged: an `.onnx`, a checkpoint or an engine.
        data: Images: files, folders, globs; none takes random images.
        random: How many random images without `data`.
        limit: At most this many images of `data`.
        batch: Batch sizes to compare at.
        r: Tokens to merge per block: 13, "26:0", [8, 8, 4]; a list of texts or lists is one run each.
        keep: Patch tokens to keep per step: 0.7, [138, 97, 68]; likewise.
        schedule: Either of the two, whichever the model takes.
        atol: Logits error where plans agree; None takes the limit of the precision, as of all that follow.
        op_rtol: Error of an op on the same inputs.
        tie_gap: Largest gap of a near-tie.
        max_ties: Largest share of near-ties.
        min_top1_agreement: Where plans agree.
        min_p: McNemar p-value below which an accuracy drop fails.
        backend: Runs the candidate; None takes the default for its suffix.
        threads: Threads of both backends; None leaves each its default.
        progress: Called when a stage begins.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Returns:
        The report. `report.passed` says whether every check passed.

    Raises:
        UsageError: An option that cannot be meant, or models that cannot be compared.
        ArtifactError, CheckpointError: A model cannot be read.
        DataError: No images.
        EnvironmentMissing: A package that a model needs is not installed.
    """
    from tmdeploy.backends.pairing import open_pair, sample_source
    from tmdeploy.validate.limits import Limits
    from tmdeploy.validate.run import validate as run

    progress("loading the models")
    pair = open_pair(
        Path(reference),
        Path(candidate),
        threads=threads,
        checkpoint=checkpoint_options(checkpoint),
        backend=backend,
    )
    with pair as (ours, theirs):
        for opened in (ours, theirs):
            warn_notes(opened)
        progress("reading the images")
        samples = sample_source(ours, theirs, as_tuple(data), random=random, limit=limit)
        return run(
            ours,
            theirs,
            samples,
            batch_sizes=as_tuple(batch),
            schedules=[amounts_of(asked, reducer(theirs)) for asked in asked_for(r, keep, schedule)] or [None],
            limits=Limits(atol, op_rtol, tie_gap, None, max_ties, min_top1_agreement, min_p),
            progress=progress,
        )
