"""Run reference and candidate on the same images, and judge level by level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

import tmdeploy
from tmdeploy.backends.base import Runner, Trace
from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.metadata import ArtifactMetadata
from tmdeploy.validate import agreement
from tmdeploy.validate.decisions import Decision, compare_decisions
from tmdeploy.validate.limits import Limits, ResolvedLimits
from tmdeploy.validate.numeric import StepError, TeacherForcing
from tmdeploy.validate.report import AccuracyRow, Check, ImageRow, ModelStats, Share, Skipped, ValidationReport

Schedule = tuple[int, ...] | None


@dataclass(frozen=True)
class Samples:
    """What to compare on.

    Attributes:
        images: f32 [B, 3, H, W], normalised, or uint8 [B, H, W, 3], as the candidate takes them.
        names: One an image.
        source: In words, for the report.
        labels: int64 [B], -1 where unknown; None without any.
        skipped: Path and reason of images that could not be read.
    """

    images: NDArray[np.generic]
    names: tuple[str, ...]
    source: str
    labels: NDArray[np.int64] | None = None
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass
class _Comparison:
    """Everything seen over all batch sizes and schedules."""

    decisions: list[Decision] = field(default_factory=list)
    rows: list[ImageRow] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    reference: list[NDArray[np.float32]] = field(default_factory=list)
    candidate: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    steps: list[StepError] = field(default_factory=list)


def validate(
    reference: Runner,
    candidate: Runner,
    samples: Samples,
    *,
    batch_sizes: Sequence[int] = (1, 8),
    schedules: Sequence[Schedule] = (None,),
    limits: Limits | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ValidationReport:
    """Compare along the chain: ops on the same inputs, decisions, model, accuracy.

    Args:
        reference: What is right.
        candidate: What is judged.
        samples: Images for both.
        batch_sizes: Both models run at each; a size above the number of images is clipped.
        schedules: Amounts to run with; None is the candidate's default.
        limits: What may differ.
        progress: Called with a short description when a stage begins.

    Raises:
        DataError: No images.
    """
    count = len(samples.images)
    if count == 0:
        raise DataError("no images to compare on")
    metadata = candidate.metadata
    precision = metadata.precision if metadata is not None else "fp32"
    no_decisions = _why_no_decisions(reference, candidate)
    forcing, no_numeric = (None, no_decisions) if no_decisions else _teacher_forcing(candidate)
    sizes = tuple(dict.fromkeys(min(size, count) for size in batch_sizes))
    seen = _Comparison()
    resolved: ResolvedLimits | None = None
    for schedule in schedules:
        for size in sizes:
            progress(f"comparing at batch {size}" + (f", schedule {_short(schedule)}" if schedule else ""))
            for start in range(0, count, size):
                rows = slice(start, start + size)
                with_tensors = forcing is not None and start == 0
                ours, theirs = _run_both(
                    reference, candidate, samples.images[rows], schedule, no_decisions is None, with_tensors
                )
                resolved = resolved or (limits or Limits()).for_precision(precision, ours.logits)
                _collect(seen, samples, rows, size, schedule, ours, theirs, metadata, resolved)
                if forcing is not None and with_tensors:
                    amounts = schedule if schedule is not None else forcing.default_amounts
                    seen.steps += forcing.compare(ours.steps, amounts)
    assert resolved is not None  # noqa: S101 - there was at least one batch
    skipped = [Skipped(level="decisions", reason=no_decisions)] if no_decisions else []
    skipped += [Skipped(level="numeric", reason=no_numeric)] if no_numeric else []
    accuracy = _accuracy(seen, count)
    if accuracy is None:
        skipped.append(Skipped(level="accuracy", reason="the images carry no labels of this model's classes"))
    return ValidationReport(
        tool_version=tmdeploy.__version__,
        reference={"name": reference.name, **reference.describe()},
        candidate={"name": candidate.name, **candidate.describe()},
        data=samples.source,
        images=count,
        skipped_images=samples.skipped,
        batch_sizes=sizes,
        schedules=tuple(schedules),
        compared=len(seen.decisions),
        agreeing=_count(seen, "agree"),
        near_ties=_count(seen, "near-tie"),
        divergent=_count(seen, "divergent"),
        checks=tuple(_checks(seen, resolved, accuracy, decisions=no_decisions is None)),
        skipped=tuple(skipped),
        differing=tuple(seen.rows),
        model=_model_stats(seen),
        accuracy=accuracy,
    )


def _why_no_decisions(reference: Runner, candidate: Runner) -> str | None:
    """Why plans cannot be compared; None if they can."""
    metadata = candidate.metadata
    if metadata is None:
        return f"{candidate.name} carries no tmdeploy metadata" if candidate.path.suffix == ".onnx" else None
    if not metadata.steps:
        return f"{candidate.name} reduces no tokens"
    if reference.path.suffix == ".onnx" and (reference.metadata is None or not reference.metadata.steps):
        return f"{reference.name} has no plans to compare with"
    return None


def _teacher_forcing(candidate: Runner) -> tuple[TeacherForcing | None, str | None]:
    if candidate.metadata is None:
        return None, f"{candidate.name} is no exported file, so its steps cannot be fed"
    try:
        return TeacherForcing(str(candidate.path), candidate.metadata), None
    except ArtifactError as error:
        return None, error.message


def _run_both(
    reference: Runner,
    candidate: Runner,
    images: NDArray[np.generic],
    schedule: Schedule,
    with_plans: bool,
    with_tensors: bool,
) -> tuple[Trace, Trace]:
    if not with_plans:
        return Trace(reference.infer(images, schedule), ()), Trace(candidate.infer(images, schedule), ())
    return reference.trace(images, schedule, tensors=with_tensors), candidate.trace(images, schedule)


def _collect(
    seen: _Comparison,
    samples: Samples,
    rows: slice,
    batch: int,
    schedule: Schedule,
    ours: Trace,
    theirs: Trace,
    metadata: ArtifactMetadata | None,
    limits: ResolvedLimits,
) -> None:
    prefix = metadata.steps[0].num_prefix if metadata is not None and metadata.steps else 1
    decided = compare_decisions(ours, theirs, num_prefix=prefix, tie_gap=limits.tie_gap, signal_atol=limits.signal_rtol)
    errors = [_largest(a - b) for a, b in zip(ours.logits, theirs.logits, strict=True)]
    for name, decision, error in zip(samples.names[rows], decided, errors, strict=True):
        if decision.kind == "agree":
            continue
        seen.rows.append(
            ImageRow(
                image=name,
                batch=batch,
                schedule=schedule,
                kind=decision.kind,
                block=decision.block,
                gap=decision.gap if math.isfinite(decision.gap) else None,
                tokens=decision.tokens,
                logits_error=error,
                reason=decision.reason,
            )
        )
    seen.decisions += decided
    seen.errors += errors
    seen.reference.append(ours.logits)
    seen.candidate.append(theirs.logits)
    unknown = np.full(len(ours.logits), -1, dtype=np.int64)
    seen.labels.append(samples.labels[rows] if samples.labels is not None else unknown)


def _largest(difference: NDArray[np.float32]) -> float:
    """Largest magnitude; infinity where anything is NaN, so that it never passes."""
    return float(np.abs(difference).max()) if np.isfinite(difference).all() else float("inf")


def _count(seen: _Comparison, kind: str) -> int:
    return sum(decision.kind == kind for decision in seen.decisions)


def _agreeing(seen: _Comparison) -> NDArray[np.bool_]:
    return np.array([decision.kind == "agree" for decision in seen.decisions])


def _checks(seen: _Comparison, limits: ResolvedLimits, accuracy: AccuracyRow | None, *, decisions: bool) -> list[Check]:
    checks = []
    if seen.steps:
        blocks = f"{len({step.block for step in seen.steps})} steps on the reference's inputs"
        differ, worst = sum(step.plans_differ for step in seen.steps), max(step.x_error for step in seen.steps)
        sizes = max(step.size_error for step in seen.steps)
        checks += [
            Check(level="numeric", name="plans that differ", value=differ, limit=0, option="-", detail=blocks),
            Check(level="numeric", name="error of tokens", value=worst, limit=limits.op_rtol, option="--op-rtol"),
            Check(level="numeric", name="error of sizes", value=sizes, limit=0, option="-"),
        ]
    total = len(seen.decisions)
    if decisions:
        ties, wrong = _count(seen, "near-tie"), _count(seen, "divergent")
        checks += [
            Check(level="decisions", name="divergent", value=wrong, limit=0, option="--tie-gap", detail=f"of {total}"),
            Check(
                level="decisions",
                name="share of near-ties",
                value=ties / total,
                limit=limits.max_ties,
                option="--max-ties",
                detail=f"{ties} of {total}, gap below {limits.tie_gap:g}",
            ),
        ]
    agreeing = _agreeing(seen)
    if agreeing.any():
        ours, theirs = np.concatenate(seen.reference)[agreeing], np.concatenate(seen.candidate)[agreeing]
        checks += [
            Check(
                level="model",
                name="logits error",
                value=max(np.array(seen.errors)[agreeing].tolist()),
                limit=limits.atol,
                option="--atol",
                detail="images whose plans agree",
            ),
            Check(
                level="model",
                name="top-1 agreement",
                value=agreement.agreement(ours, theirs, 1).share,
                limit=limits.min_top1,
                sense=">=",
                option="--min-top1-agreement",
                detail="images whose plans agree",
            ),
        ]
    if accuracy is not None:
        worse = accuracy.candidate < accuracy.reference
        checks.append(
            Check(
                level="accuracy",
                name="p-value of a drop",
                value=accuracy.p_value if worse else 1.0,
                limit=limits.min_p,
                sense=">=",
                option="--min-p",
                detail=f"{accuracy.reference:.1%} to {accuracy.candidate:.1%}",
            )
        )
    return checks


def _model_stats(seen: _Comparison) -> ModelStats:
    ours, theirs = np.concatenate(seen.reference), np.concatenate(seen.candidate)
    agreeing, errors = _agreeing(seen), np.array(seen.errors)
    divergence = agreement.kl_divergence(ours, theirs)
    return ModelStats(
        logits_error_max=float(errors.max()),
        logits_error_agreeing_max=float(errors[agreeing].max()) if agreeing.any() else None,
        top1=Share(**asdict(agreement.agreement(ours, theirs, 1))),
        top5=Share(**asdict(agreement.agreement(ours, theirs, 5))),
        kl_mean=float(divergence.mean()),
        kl_max=float(divergence.max()),
    )


def _accuracy(seen: _Comparison, images: int) -> AccuracyRow | None:
    """On the first pass over the images only: the test is paired by image, and repeated passes would count twice."""
    ours, theirs = np.concatenate(seen.reference)[:images], np.concatenate(seen.candidate)[:images]
    labels = np.concatenate(seen.labels)[:images]
    known = (labels >= 0) & (labels < ours.shape[1])
    if not known.any() or not known[labels >= 0].all():
        return None
    return AccuracyRow(**asdict(agreement.accuracy(ours[known], theirs[known], labels[known])))


def _short(schedule: Sequence[int]) -> str:
    return str(schedule[0]) if len(set(schedule)) == 1 else ",".join(map(str, schedule))
