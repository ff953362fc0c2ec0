"""Results of comparing two models, over all images, batch sizes and schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Trace
from tmdeploy.data.samples import Portion
from tmdeploy.report.schemas.validation import AccuracyRow, ImageRow, ModelStats, Share
from tmdeploy.validate import agreement
from tmdeploy.validate.decisions import Decision, Kind
from tmdeploy.validate.numeric import StepError

Schedule = tuple[int, ...] | None


@dataclass
class Comparison:
    """Every image at every batch size and schedule, one entry each, in the order they ran.

    Attributes:
        decisions: What became of the plans.
        rows: Those whose plans differ, for the report.
        errors: Largest logits error; infinity where anything is not finite.
        image: Running number of the image.
        passes: Running number of the batch size and schedule.
        reference: Logits, one array per batch.
        candidate: Logits, one array per batch.
        labels: One array per batch; -1 where unknown.
        steps: Steps on the reference's inputs.
    """

    decisions: list[Decision] = field(default_factory=list)
    rows: list[ImageRow] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    reference: list[NDArray[np.float32]] = field(default_factory=list)
    candidate: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    steps: list[StepError] = field(default_factory=list)

    def add(
        self,
        ours: Trace,
        theirs: Trace,
        decided: list[Decision],
        portion: Portion,
        *,
        first: int,
        batch: int,
        schedule: Schedule,
        pass_number: int,
    ) -> None:
        """One batch.

        Args:
            ours: Trace of the reference.
            theirs: Trace of the candidate.
            decided: One decision per image.
            portion: The batch.
            first: Running number of its first image.
            batch: Batch size asked for: the last batch of a pass may be smaller.
            schedule: Amounts that it ran with.
            pass_number: Running number of batch size and schedule.
        """
        errors = [_largest(a - b) for a, b in zip(ours.logits, theirs.logits, strict=True)]
        for name, decision, error in zip(portion.names, decided, errors, strict=True):
            if decision.kind != "agree":
                self.rows.append(_row(name, decision, error, batch, schedule))
        self.decisions += decided
        self.errors += errors
        self.image += range(first, first + len(decided))
        self.passes += [pass_number] * len(decided)
        self.reference.append(ours.logits)
        self.candidate.append(theirs.logits)
        self.labels.append(portion.labels)

    @property
    def images(self) -> int:
        """Different images."""
        return len(set(self.image))

    def count(self, kind: Kind) -> int:
        """Comparisons that ended so."""
        return sum(decision.kind == kind for decision in self.decisions)

    @property
    def agreeing(self) -> NDArray[np.bool_]:
        """Which comparisons have equal plans."""
        return np.array([decision.kind == "agree" for decision in self.decisions], dtype=bool)

    def worst_error(self, kind: Kind) -> float | None:
        """Largest logits error of comparisons that ended so; None without any."""
        found = [error for error, decision in zip(self.errors, self.decisions, strict=True) if decision.kind == kind]
        return float(np.max(found)) if found else None

    def agreement(self, k: int, *, only: NDArray[np.bool_] | None = None) -> agreement.Interval:
        """Share of images whose reference top-1 is in the candidate's top-k, at every batch size and schedule.

        By image, not by comparison: the same image at two batch sizes is no independent evidence, and counting it
        twice would make the interval too narrow.

        Args:
            k: Clipped to the number of classes.
            only: Comparisons to look at; at least one.
        """
        hits = agreement.hits(np.concatenate(self.reference), np.concatenate(self.candidate), k)
        missed: dict[int, bool] = {}
        for number, (image, hit) in enumerate(zip(self.image, hits.tolist(), strict=True)):
            if only is None or only[number]:
                missed[image] = missed.get(image, False) or not hit
        return agreement.interval(len(missed) - sum(missed.values()), len(missed))

    def stats(self) -> ModelStats:
        """Agreement of the outputs over everything, near-ties included."""
        divergence = agreement.kl_divergence(np.concatenate(self.reference), np.concatenate(self.candidate))
        top1, top5 = self.agreement(1), self.agreement(5)
        return ModelStats(
            logits_error_max=float(np.max(self.errors)),
            logits_error_agreeing_max=self.worst_error("agree"),
            logits_error_near_ties_max=self.worst_error("near-tie"),
            top1=Share(share=top1.share, low=top1.low, high=top1.high, images=top1.images),
            top5=Share(share=top5.share, low=top5.low, high=top5.high, images=top5.images),
            kl_mean=float(divergence.mean()),
            kl_max=float(divergence.max()),
        )

    def accuracy(self) -> AccuracyRow | None:
        """On the first pass over the images only: the test is paired by image. None without labels that fit."""
        first = np.array(self.passes) == 0
        ours, theirs, labels = (np.concatenate(part)[first] for part in (self.reference, self.candidate, self.labels))
        known = labels >= 0
        if not known.any() or (labels >= ours.shape[1]).any():
            return None
        found = agreement.accuracy(ours[known], theirs[known], labels[known])
        return AccuracyRow(
            reference=found.reference,
            candidate=found.candidate,
            images=found.images,
            only_reference=found.only_reference,
            only_candidate=found.only_candidate,
            p_value=found.p_value,
        )


def _row(name: str, decision: Decision, error: float, batch: int, schedule: Schedule) -> ImageRow:
    return ImageRow(
        image=name,
        batch=batch,
        schedule=schedule,
        kind="near-tie" if decision.kind == "near-tie" else "divergent",
        block=decision.block,
        gap=decision.gap if math.isfinite(decision.gap) else None,
        tokens=decision.tokens,
        signal_error=decision.signal_error if math.isfinite(decision.signal_error) else None,
        logits_error=error,
        reason=decision.reason,
    )


def _largest(difference: NDArray[np.float32]) -> float:
    """Largest magnitude; infinity where anything is NaN, so that it never passes."""
    return float(np.abs(difference).max()) if np.isfinite(difference).all() else float("inf")
