"""Level 2: did both models take the same decisions, and where not, why?

A rounding difference upstream can flip a decision between two nearly equal similarities; everything after that step
then differs, and rightly so. So for every image the *first* step whose plan differs is judged; later steps of that
image are not. The difference is a near-tie if all of this holds, and a divergence otherwise:

- the candidate's plan has the form of the op (docs/ops.md): counts, slot order, prefix in place;
- by the reference's own signal, recomputed in float64, the decisions it takes otherwise are worse by less than a limit;
- both signals agree up to rounding: a larger error has another cause;
- each plan follows from its own signal: a planner that decides against its input is wrong however small the gap.

A selection that keeps the same tokens in another order took the same decision: attention does not see the order, so
nothing but rounding follows from it. Such plans agree if the order passes the test above, and what comes later is
compared token by token. Not so before a TokenMatch, whose halves are chosen by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import StepTrace, Trace
from tmdeploy.validate.order import Slots, in_the_order_of, matching_slots
from tmdeploy.validate.plan_gap import Form, Gap, MalformedPlan, Signal, form_of, plan_gap

Kind = Literal["agree", "near-tie", "divergent"]

# Planners compute in float32 or better on the recorded signal. Rounded to float32, similarities near 1 are 6e-8 apart;
# summed in float32 over up to 1,024 channels (deterministic = 0) they are off by a few of those. Scores are only sorted
# by the planner, so there is nothing to round.
PLANNER_EPS = 1e-6


@dataclass(frozen=True)
class Decision:
    """The verdict on one image.

    Attributes:
        kind: `agree`: all plans equal. `near-tie`: the first difference is one that rounding explains.
        block: Block of the first difference; None if there is none.
        gap: How much better the reference's decisions were, by its own signal; 0 is an exact tie, infinity no matter of
            a gap.
        tokens: Tokens that ended with another anchor, or slots in another order if none did.
        signal_error: Largest difference of the two signals at that step.
        reason: Why it is divergent.
        reordered: It agrees, but tokens with nearly equal scores stand in another order somewhere.
    """

    kind: Kind
    block: int | None = None
    gap: float = 0.0
    tokens: int = 0
    signal_error: float = 0.0
    reason: str = ""
    reordered: bool = False


def compare_decisions(
    reference: Trace, candidate: Trace, *, num_prefix: int, tie_gap: float, signal_rtol: float
) -> list[Decision]:
    """Judge every image of two traces of the same batch.

    Args:
        reference: Trace of the reference; its signals decide what is a near-tie.
        candidate: The same steps in the same order.
        num_prefix: Prefix tokens.
        tie_gap: A gap below this is a near-tie.
        signal_rtol: How far the candidate's signal may be from the reference's at the step that differs, relative to
            its largest magnitude.

    Returns:
        One decision an image.
    """
    images = len(reference.logits)
    problem = _not_comparable(reference, candidate)
    if problem is not None:
        return [Decision("divergent", gap=float("inf"), reason=problem)] * images
    judge = _Judge(num_prefix, tie_gap, signal_rtol)
    return [judge.image(reference.steps, candidate.steps, image) for image in range(images)]


def _not_comparable(reference: Trace, candidate: Trace) -> str | None:
    ours, theirs = (tuple((step.block, step.op) for step in trace.steps) for trace in (reference, candidate))
    if ours != theirs:
        return "the two models do not take the same reduction steps"
    images = len(reference.logits)
    batches = {len(step.map) for step in candidate.steps} | {len(step.index) for step in candidate.steps}
    if batches | {len(candidate.logits)} != {images}:
        return f"the candidate did not return one result for each of {images} images"
    return None


@dataclass(frozen=True)
class _Judge:
    num_prefix: int
    tie_gap: float
    signal_rtol: float

    def image(self, reference: Sequence[StepTrace], candidate: Sequence[StepTrace], image: int) -> Decision:
        moved: Slots | None = None  # the candidate's position of each of the reference's tokens, if it is another
        reordered = False
        for number, (ours, whole) in enumerate(zip(reference, candidate, strict=True)):
            theirs = _only(whole, image) if moved is None else in_the_order_of(_only(whole, image), moved)
            mine = _only(ours, image)
            if moved is None and _same_plan(mine, theirs):
                continue
            slots = matching_slots(mine, theirs)
            if slots is None or any(step.op != "TokenSelect" for step in reference[number:]):
                return self._first_difference(mine, theirs, 0)
            if not _same_plan(mine, theirs):
                judged = self._first_difference(mine, theirs, 0)
                if judged.kind == "divergent":
                    return judged
                reordered = True
            moved = slots
        return Decision("agree", reordered=reordered)

    def _first_difference(self, ours: StepTrace, theirs: StepTrace, image: int) -> Decision:
        tokens, gap, error = 0, float("inf"), float("nan")
        try:
            our_signal, their_signal = self._signal(ours, image), self._signal(theirs, image)
            form = form_of(our_signal, ours.map[image], ours.index[image], order_eps=PLANNER_EPS)
            self._follows(our_signal, ours, image, form, "reference")
            # before the signals: a plan of the wrong form is the shorter explanation
            by_reference = plan_gap(our_signal, theirs.map[image], theirs.index[image], form)
            tokens, gap = _changed(ours, theirs, image), by_reference.largest
            error = self._signal_error(our_signal, their_signal)
            self._follows(their_signal, theirs, image, form, "candidate")
        except MalformedPlan as problem:
            return Decision("divergent", ours.block, gap, tokens, error, str(problem))
        if not gap < self.tie_gap:
            return Decision("divergent", ours.block, gap, tokens, error, f"a gap of {gap:.2g} is no near-tie")
        return Decision("near-tie", ours.block, gap, tokens, error)

    def _signal(self, step: StepTrace, image: int) -> Signal:
        metric = step.metric[image] if step.metric is not None else None
        return Signal(step.op, step.signal[image], metric, self.num_prefix)

    def _follows(self, signal: Signal, step: StepTrace, image: int, form: Form, who: str) -> None:
        """A planner's plan must be the best one by its own signal.

        Raises:
            MalformedPlan: It is not.
        """
        try:
            gap = plan_gap(signal, step.map[image], step.index[image], form)
        except MalformedPlan as problem:
            raise MalformedPlan(f"{problem} (in the {who})") from None
        if not _planned(gap):
            raise MalformedPlan(f"the {who}'s plan does not follow from its own signal (gap {gap.largest:.2g})")

    def _signal_error(self, ours: Signal, theirs: Signal) -> float:
        """Largest difference of the signals' patch tokens.

        Raises:
            MalformedPlan: It is more than rounding.
        """
        largest = 0.0
        for name, full_a, full_b in (("signal", ours.values, theirs.values), ("metric", ours.metric, theirs.metric)):
            if full_a is None and full_b is None:
                continue
            if full_a is None or full_b is None or full_a.shape != full_b.shape:
                raise MalformedPlan(f"the planners' {name}s have different shapes")
            a, b = full_a[self.num_prefix :], full_b[self.num_prefix :]
            error, scale = _largest_difference(a, b), float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
            largest = max(largest, error)
            if not error <= self.signal_rtol * scale:
                raise MalformedPlan(f"the planner's {name} was off by {error:.2g} before it decided")
        return largest


def _planned(gap: Gap) -> bool:
    return gap.similarity <= PLANNER_EPS and gap.score <= 0.0


def _only(step: StepTrace, image: int) -> StepTrace:
    """What the planner saw and decided in a step, for one image of its batch."""
    row = slice(image, image + 1)
    metric = None if step.metric is None else step.metric[row]
    return StepTrace(step.block, step.op, step.map[row], step.index[row], step.signal[row], metric)


def _same_plan(ours: StepTrace, theirs: StepTrace) -> bool:
    return np.array_equal(ours.map, theirs.map) and np.array_equal(ours.index, theirs.index)


def _changed(ours: StepTrace, theirs: StepTrace, image: int) -> int:
    """Tokens whose slot has another anchor; if there are none, slots whose anchor differs."""
    ends = []
    for step in (ours, theirs):
        plan, index = step.map[image], step.index[image]
        ends.append(np.where(plan < 0, -2, index[plan]))
    return int((ends[0] != ends[1]).sum()) or int((ours.index[image] != theirs.index[image]).sum())


def _largest_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Largest |a - b|; equal infinities and NaN in the same place differ by 0, others by infinity."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
