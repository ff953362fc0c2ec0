"""Run reference and candidate on the same images, and judge level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

import tmdeploy
from tmdeploy.backends.base import Runner, Trace
from tmdeploy.data.preprocessing import normalise
from tmdeploy.data.samples import Portion, Samples, Source
from tmdeploy.errors import ArtifactError, DataError, UsageError
from tmdeploy.report.schemas.validation import RealisationName, RealisationRow, Skipped, ValidationReport
from tmdeploy.system.progress import Progress, silent
from tmdeploy.validate.checks import all_checks
from tmdeploy.validate.comparability import Comparability, comparability
from tmdeploy.validate.comparison import Comparison, Schedule
from tmdeploy.validate.decisions import Decision, compare_decisions
from tmdeploy.validate.limits import Limits, ResolvedLimits
from tmdeploy.validate.numeric import TeacherForcing
from tmdeploy.validate.realisations import Realisation, prove_ops

__all__ = ["Samples", "Schedule", "validate"]

_PORTION = 64  # images in memory at a time, in whole batches: 224 x 224 in float32 takes 0.6 MB an image


def validate(
    reference: Runner,
    candidate: Runner,
    samples: Source,
    *,
    batch_sizes: Sequence[int] = (1, 8),
    schedules: Sequence[Schedule] = (None,),
    limits: Limits | None = None,
    progress: Progress = silent,
) -> ValidationReport:
    """Compare along the chain: ops on the same inputs, decisions, model, accuracy.

    A level that cannot be judged is listed with the reason in `skipped`, never passed.

    Args:
        reference: The model taken as right.
        candidate: The model to judge.
        samples: Images for both.
        batch_sizes: Both models run at each; a size above the number of images is clipped, and a file with a static
            batch runs at that batch only.
        schedules: Amounts to run with; None is the candidate's default.
        limits: How much may differ.
        progress: Called with a short description when a stage begins.

    Raises:
        DataError: No images.
        UsageError: A schedule that one of the models cannot run with, or a limit of a level that cannot be judged.
    """
    limits = limits or Limits()
    withheld = candidate.plans_withheld or reference.plans_withheld
    if withheld:
        _check_levels(withheld, limits)
    plans = comparability(reference, candidate)
    forcing, no_numeric = (None, plans.problem) if plans.problem else _teacher_forcing(candidate)
    sizes, notes = _possible_sizes(reference, candidate, batch_sizes)
    if withheld and plans.reference_reduces:
        notes += ("images that another plan was made for, near-ties too, count in the logits error: see --atol",)
    work = _Work(reference, candidate, plans, forcing, limits, Comparison())
    count = 0
    for portion in samples.portions(max(sizes) * max(1, _PORTION // max(sizes))):
        if count == 0:
            sizes = tuple(dict.fromkeys(min(size, len(portion.names)) for size in sizes))
        passes = [(schedule, size) for schedule in schedules for size in sizes]
        for number, (schedule, size) in enumerate(passes):
            until = count + len(portion.names)
            progress(f"comparing images {count + 1} to {until} at batch {size}" + _short(schedule))
            work.compare(portion, first=count, size=size, schedule=schedule, pass_number=number)
        count += len(portion.names)
    if work.limits is None:
        path, reason = next(iter(samples.skipped), (None, "there are none"))
        raise DataError(f"no images to compare on: {reason}", path=path, remedy="Give JPEG, PNG or similar files")
    seen = work.seen
    accuracy = seen.accuracy()
    progress("running every op by itself")
    realisations = _realisations(candidate, work.limits)
    if no_numeric is not None and any(row.ops for row in realisations):
        notes += (f"steps were not fed the reference's tensors, ops were run by themselves only: {no_numeric}",)
        no_numeric = None
    missing = {
        "decisions": plans.problem,
        "numeric": no_numeric,
        "model": None if seen.agreeing.any() else "there is no image whose plans agree",
        "accuracy": "the images carry no labels of this model's classes" if accuracy is None else None,
    }
    return ValidationReport(
        tool_version=tmdeploy.__version__,
        reference={"name": reference.name, **reference.facts.described()},
        candidate={"name": candidate.name, **candidate.facts.described()},
        data=samples.source,
        images=count,
        skipped_images=samples.skipped,
        batch_sizes=sizes,
        schedules=tuple(schedules),
        compared=len(seen.decisions),
        agreeing=0 if plans.problem else seen.count("agree"),
        reordered=sum(decision.reordered for decision in seen.decisions),
        near_ties=seen.count("near-tie"),
        divergent=seen.count("divergent"),
        checks=all_checks(seen, work.limits, accuracy, realisations, decisions=plans.problem is None),
        skipped=tuple(Skipped.model_validate({"level": name, "reason": why}) for name, why in missing.items() if why),
        realisations=realisations,
        differing=tuple(seen.rows),
        model=seen.stats(),
        accuracy=accuracy,
        notes=notes,
    )


@dataclass
class _Work:
    """What stays the same from batch to batch, and what was seen."""

    reference: Runner
    candidate: Runner
    plans: Comparability
    forcing: TeacherForcing | None
    asked: Limits
    seen: Comparison
    limits: ResolvedLimits | None = None

    def compare(self, portion: Portion, *, first: int, size: int, schedule: Schedule, pass_number: int) -> None:
        """One portion at one batch size and schedule."""
        for start in range(0, len(portion.names), size):
            rows = slice(start, start + size)
            part = Portion(portion.images[rows], portion.names[rows], portion.labels[rows])
            # tensors of the first batch of each pass only: they are large, and the ops do not depend on the image
            forcing = self.forcing if first == start == 0 else None
            ours, theirs = self._run(part.images, schedule, tensors=forcing is not None)
            if self.limits is None:
                precision = self.candidate.facts.precision
                self.limits = self.asked.for_precision(precision or "fp32", ours.logits)
            decided = self._judge(ours, theirs, self.limits)
            self.seen.add(
                ours,
                theirs,
                decided,
                part,
                first=first + start,
                batch=size,
                schedule=schedule,
                pass_number=pass_number,
            )
            if forcing is not None:
                self.seen.steps += forcing.compare(ours.steps, schedule or forcing.default_amounts)

    def _run(self, images: NDArray[np.generic], schedule: Schedule, *, tensors: bool) -> tuple[Trace, Trace]:
        ours_in, theirs_in = _as_input(images, self.reference), _as_input(images, self.candidate)
        for_reference = self.plans.reference_schedule if schedule is None else schedule
        if self.plans.problem is None:
            ours = self.reference.trace(ours_in, for_reference, tensors=tensors)
            return ours, self.candidate.trace(theirs_in, schedule)
        if not self.plans.reference_reduces:
            for_reference = None
        ours = Trace(self.reference.infer(ours_in, for_reference), ())
        theirs = Trace(self.candidate.infer(theirs_in, schedule), ())
        return ours, theirs

    def _judge(self, ours: Trace, theirs: Trace, limits: ResolvedLimits) -> list[Decision]:
        if ours.logits.shape != theirs.logits.shape:
            raise ArtifactError(
                f"returns {list(theirs.logits.shape)}, but the reference {list(ours.logits.shape)}",
                path=self.candidate.path,
                remedy="Compare models with the same classes",
            )
        if self.plans.problem is not None:
            return [Decision("agree")] * len(ours.logits)
        return compare_decisions(
            ours,
            theirs,
            num_prefix=self.plans.num_prefix,
            tie_gap=limits.tie_gap,
            signal_rtol=limits.signal_rtol,
        )


def _realisations(candidate: Runner, limits: ResolvedLimits) -> tuple[RealisationRow, ...]:
    """What computes the candidate's steps, first what the levels ran with; then the bodies that kernels hide."""
    metadata = candidate.metadata
    if metadata is None or not metadata.steps:
        return ()
    proved: dict[RealisationName, Realisation] = {one.name: one for one in prove_ops(candidate, limits.op_rtol)}
    ran: RealisationName = "bodies"
    if candidate.plans_withheld:
        ran = "engine"
    elif metadata.lowering == "portable":
        ran = "standard ops"
    elif candidate.facts.native:
        ran = "native"
    names: dict[RealisationName, None] = dict.fromkeys((ran, *proved))
    found = {name: asdict(one) for name, one in proved.items()}
    return tuple(RealisationRow(**{"name": name, **found.get(name, {})}, levels=name == ran) for name in names)


def _teacher_forcing(candidate: Runner) -> tuple[TeacherForcing | None, str | None]:
    if candidate.metadata is None or candidate.parts is None:
        return None, f"{candidate.name} is no exported file, so its steps cannot be fed"
    try:
        return TeacherForcing(candidate.path, candidate.metadata, candidate.parts), None
    except ArtifactError as error:
        return None, error.message


def _check_levels(withheld: str, limits: Limits) -> None:
    """Refuse limits of the levels that need plans, where a model does not give them and says why."""
    asked = {"--op-rtol": limits.op_rtol, "--tie-gap": limits.tie_gap}
    for option, value in asked.items():
        if value is not None:
            raise UsageError(
                f"{option}: {withheld}, so neither ops nor decisions can be judged",
                remedy="Leave it out, or validate the .onnx that the engine was built from",
            )


def _possible_sizes(
    reference: Runner, candidate: Runner, wanted: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Batch sizes that both can run."""
    for runner in (reference, candidate):
        if runner.metadata is not None and not runner.metadata.dynamic_batch and set(wanted) != {1}:
            return (1,), (f"{runner.name} was exported for batch 1 only, so other batch sizes were not compared",)
    return tuple(dict.fromkeys(wanted)), ()


def _as_input(images: NDArray[np.generic], runner: Runner) -> NDArray[np.generic]:
    """Pixels for a model that takes pixels; normalised by its own rule for one that does not."""
    if images.dtype == np.uint8 and not runner.pixels_in:
        return normalise(images.astype(np.uint8, copy=False), runner.preprocessing)
    return images


def _short(schedule: Schedule) -> str:
    if not schedule:
        return ""
    return ", schedule " + (str(schedule[0]) if len(set(schedule)) == 1 else ",".join(map(str, schedule)))
