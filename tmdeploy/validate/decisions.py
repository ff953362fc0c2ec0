"""Level 2: did both models take the same decisions, and where not, why?

A rounding difference upstream can flip a decision between two nearly equal similarities; everything after that step
then differs, and rightly so. So for every image the *first* step whose plan differs is judged, on the reference's own
signal: a difference whose gap is below the tolerance is a near-tie, anything else is a divergence. Later steps of that
image are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import StepTrace, Trace

Floats = NDArray[np.float64]
Kind = Literal["agree", "near-tie", "divergent"]


@dataclass(frozen=True)
class Decision:
    """What became of one image.

    Attributes:
        kind: `agree`: all plans equal. `near-tie`: the first difference is one that rounding explains.
        block: Block of the first difference; None if there is none.
        gap: How much better the reference's decision was, by its own signal; 0 is an exact tie.
        tokens: Tokens decided otherwise.
        reason: Why it is divergent.
    """

    kind: Kind
    block: int | None = None
    gap: float = 0.0
    tokens: int = 0
    reason: str = ""


class _Malformed(Exception):  # noqa: N818 - internal signal: the candidate's plan is no plan
    pass


def compare_decisions(
    reference: Trace, candidate: Trace, *, num_prefix: int, tie_gap: float, signal_atol: float
) -> list[Decision]:
    """Judge every image of two traces of the same batch.

    Args:
        reference: Whose signals decide what a near-tie is.
        candidate: The same steps in the same order.
        num_prefix: Prefix tokens.
        tie_gap: Largest gap that counts as a near-tie.
        signal_atol: How far the candidate's signal may be from the reference's, relative to its largest magnitude, at
            the step that differs; beyond it the difference is an upstream error, not a tie.

    Returns:
        One decision an image.
    """
    images = len(reference.logits)
    if [step.block for step in reference.steps] != [step.block for step in candidate.steps]:
        reason = "the two models do not reduce in the same blocks"
        return [Decision("divergent", None, float("inf"), 0, reason)] * images
    return [
        _judge_image(reference.steps, candidate.steps, image, num_prefix, tie_gap, signal_atol)
        for image in range(images)
    ]


def _judge_image(
    reference: Sequence[StepTrace],
    candidate: Sequence[StepTrace],
    image: int,
    num_prefix: int,
    tie_gap: float,
    signal_atol: float,
) -> Decision:
    for ours, theirs in zip(reference, candidate, strict=True):
        same_shape = ours.map.shape == theirs.map.shape and ours.index.shape == theirs.index.shape
        if same_shape and _equal(ours, theirs, image):
            continue
        tokens = 0
        try:
            if not same_shape:
                raise _Malformed(f"{theirs.index.shape[1]} tokens after the step instead of {ours.index.shape[1]}")
            _check_signal(ours, theirs, image, signal_atol)
            tokens = int((ours.map[image] != theirs.map[image]).sum())
            gap = _gap(ours, theirs, image, num_prefix)
        except _Malformed as problem:
            return Decision("divergent", ours.block, float("inf"), tokens, str(problem))
        if gap < tie_gap:
            return Decision("near-tie", ours.block, gap, tokens)
        return Decision("divergent", ours.block, gap, tokens, f"similarity gap {gap:.2g} is no near-tie")
    return Decision("agree")


def _equal(ours: StepTrace, theirs: StepTrace, image: int) -> bool:
    return np.array_equal(ours.map[image], theirs.map[image]) and np.array_equal(ours.index[image], theirs.index[image])


def _check_signal(ours: StepTrace, theirs: StepTrace, image: int, atol: float) -> None:
    for name, a, b in (("signal", ours.signal, theirs.signal), ("metric", ours.metric, theirs.metric)):
        if a is None or b is None:
            continue
        scale = float(np.nanmax(np.abs(a[image]), initial=0.0)) or 1.0
        error = float(np.nanmax(np.abs(a[image] - b[image]), initial=0.0))
        if error > atol * scale:
            raise _Malformed(f"the planner's {name} is off by {error:.2g} before the decision")


def _gap(ours: StepTrace, theirs: StepTrace, image: int, prefix: int) -> float:
    plan, index = theirs.map[image], theirs.index[image]
    _check_plan(plan, index, prefix, fused=bool((ours.index[image] == -1).any()))
    if ours.op == "TokenMatch":
        return _match_gap(ours, plan, index, image, prefix)
    return _select_gap(ours, plan, index, image, prefix)


def _check_plan(plan: NDArray[np.int32], index: NDArray[np.int32], prefix: int, *, fused: bool) -> None:
    """A candidate's plan must be a plan: prefix in place, anchors distinct and mapped to their own slots."""
    tokens, slots = len(plan), len(index)
    if plan.min() < -1 or plan.max() >= slots or index.min() < -1 or index.max() >= tokens:
        raise _Malformed("the plan points outside its range")
    anchors = index[index >= 0]
    if len(set(anchors.tolist())) != len(anchors) or (len(anchors) < slots) != fused:
        raise _Malformed("the plan's anchors are not one token a slot")
    if index[:prefix].tolist() != list(range(prefix)):
        raise _Malformed("prefix tokens are not in place")
    if plan[anchors].tolist() != np.flatnonzero(index >= 0).tolist():
        raise _Malformed("an anchor is not mapped to its own slot")


def _match_gap(ours: StepTrace, plan: NDArray[np.int32], index: NDArray[np.int32], image: int, prefix: int) -> float:
    """Gap of another destination, or of another set of merged tokens (docs/ops.md, TokenMatch)."""
    tokens, slots = len(plan), len(index)
    sources = np.arange(prefix + prefix % 2, tokens, 2)
    targets = np.arange(prefix + 1 - prefix % 2, tokens, 2)
    similarity = _cosine(ours.signal[image, sources], ours.signal[image, targets])
    best = similarity.max(axis=1)
    row = {int(token): number for number, token in enumerate(sources)}
    column = {int(token): number for number, token in enumerate(targets)}

    merged_ours = _merged(ours.index[image], tokens)
    merged_theirs = _merged(index, tokens)
    if not merged_theirs <= set(row) or index[slots - len(targets) :].tolist() != targets.tolist():
        raise _Malformed("tokens of the wrong half were merged, or the slots are in another order")
    kept = index[prefix : slots - len(targets)]
    gaps = []
    if prefix:
        if kept.tolist() != sorted(kept.tolist()):
            raise _Malformed("kept tokens are in another order")
    else:  # kept tokens stand in order of similarity: an inversion is a tie of two of them
        values = best[[row[int(token)] for token in kept]]
        gaps.append(_inversion(values))
    for token in merged_theirs:
        destination = int(index[plan[token]])
        if destination not in column:
            raise _Malformed("a token was merged into one that is no destination")
        gaps.append(float(best[row[token]] - similarity[row[token], column[destination]]))
    only_ours, only_theirs = merged_ours - merged_theirs, merged_theirs - merged_ours
    if only_ours:
        gaps.append(
            max(float(best[row[token]]) for token in only_ours) - min(float(best[row[token]]) for token in only_theirs)
        )
    return max(gaps)


def _select_gap(ours: StepTrace, plan: NDArray[np.int32], index: NDArray[np.int32], image: int, prefix: int) -> float:
    """Gap of another kept set, of another order, or of another destination (docs/ops.md, TokenSelect)."""
    score = ours.signal[image].astype(np.float64)
    kept_ours = ours.index[image][prefix:]
    kept_ours, kept_theirs = kept_ours[kept_ours >= 0], index[prefix:][index[prefix:] >= 0]
    only_ours, only_theirs = (
        set(kept_ours.tolist()) - set(kept_theirs.tolist()),
        set(kept_theirs.tolist()) - set(kept_ours.tolist()),
    )
    gaps = [0.0]
    if only_ours:
        gaps.append(max(score[list(only_ours)]) - min(score[list(only_theirs)]))
    if kept_theirs.tolist() != sorted(kept_theirs.tolist()):
        if kept_ours.tolist() == sorted(kept_ours.tolist()):
            raise _Malformed("kept tokens are in another order")
        gaps.append(_inversion(score[kept_theirs]))
    rest = np.array(sorted(set(range(prefix, len(plan))) - set(kept_theirs.tolist())), dtype=np.int64)
    if not len(rest):
        return float(max(gaps))
    if ours.metric is None:
        expected = len(index) - 1 if (index == -1).any() else -1
        if (plan[rest] != expected).any():
            raise _Malformed("tokens that were not kept went to the wrong slot")
        return float(max(gaps))
    candidates = np.sort(kept_theirs)
    similarity = _cosine(ours.metric[image, rest], ours.metric[image, candidates])
    destination = index[plan[rest]]
    if not set(destination.tolist()) <= set(candidates.tolist()):
        raise _Malformed("a token was merged into one that was not kept")
    chosen = similarity[np.arange(len(rest)), np.searchsorted(candidates, destination)]
    gaps.append(float((similarity.max(axis=1) - chosen).max()))
    return float(max(gaps))


def _merged(index: NDArray[np.int32], tokens: int) -> set[int]:
    return set(range(tokens)) - set(index.tolist())


def _inversion(values: Floats) -> float:
    """By how much a sequence that should fall rises: the largest later value minus an earlier one."""
    if len(values) < 2:
        return 0.0
    lowest_so_far = np.minimum.accumulate(values)[:-1]
    return max(0.0, float((values[1:] - lowest_so_far).max()))


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> Floats:
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide_a, axis=1)[:, None] * np.linalg.norm(wide_b, axis=1)[None]
    dots = wide_a @ wide_b.T
    similarity = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return np.where(np.isnan(similarity), -np.inf, similarity)
