"""How far a plan is from the best one by its planner's signal, recomputed in float64 from docs/ops.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


class MalformedPlan(Exception):  # noqa: N818 - says what the plan is
    """No choice between near-equal values explains this plan: its form is wrong."""


@dataclass(frozen=True)
class Signal:
    """What a planner decided on, for one image.

    Attributes:
        op: `TokenMatch` or `TokenSelect`.
        values: f32 [N, C] metric (match) or [N] score (select).
        metric: f32 [N, C], for a selection that merges leftovers into the nearest kept token.
        num_prefix: Prefix tokens P.
    """

    op: str
    values: NDArray[np.float32]
    metric: NDArray[np.float32] | None
    num_prefix: int


@dataclass(frozen=True)
class Form:
    """What a plan of this step looks like, whatever the signal: read off the reference's plan.

    Attributes:
        tokens: N.
        slots: M.
        fused: Whether the last slot has no anchor.
        by_position: Whether kept tokens may stand by position.
        by_signal: Whether kept tokens may stand by descending similarity or score. Few tokens can fit both orders.
    """

    tokens: int
    slots: int
    fused: bool
    by_position: bool
    by_signal: bool


@dataclass(frozen=True)
class Gap:
    """By how much the best decisions beat those of a plan; 0 is a plan that takes the best, or equally good ones.

    Attributes:
        similarity: Gap in cosine similarity.
        score: Gap in score.
    """

    similarity: float = 0.0
    score: float = 0.0

    @property
    def largest(self) -> float:
        """The larger gap, component by component."""
        return max(self.similarity, self.score)


def form_of(signal: Signal, plan: Ints, index: Ints, *, order_eps: float) -> Form:
    """Read off a plan what every plan of the step must look like.

    Args:
        signal: The signal that the plan was made from.
        plan: int32 [N].
        index: int32 [M].
        order_eps: Similarities this close may stand in either order.
    """
    kept = _kept(signal, index)
    values = _order_values(signal)[kept]
    eps = order_eps if signal.op == "TokenMatch" else 0.0
    return Form(
        tokens=len(plan),
        slots=len(index),
        fused=bool(len(index)) and bool(index[-1] == -1),
        by_position=bool((np.diff(kept) > 0).all()),
        by_signal=_rise(values) <= eps,
    )


def plan_gap(signal: Signal, plan: Ints, index: Ints, form: Form) -> Gap:
    """How far a plan is from the best one.

    Args:
        signal: The signal to judge by.
        plan: int32 [N], output slot of every token.
        index: int32 [M], anchor token of every slot.
        form: The form that it must have.

    Raises:
        MalformedPlan: Wrong whatever the signal says: prefix moved, slots out of range, other order, wrong counts.
    """
    _check_form(plan, index, form, signal.num_prefix)
    return (
        _match_gap(signal, plan, index, form) if signal.op == "TokenMatch" else _select_gap(signal, plan, index, form)
    )


def _check_form(plan: Ints, index: Ints, form: Form, prefix: int) -> None:
    if len(plan) != form.tokens or len(index) != form.slots:
        raise MalformedPlan(f"{len(plan)} tokens became {len(index)} instead of {form.tokens} becoming {form.slots}")
    if plan.min() < -1 or plan.max() >= form.slots or index.min() < -1 or index.max() >= form.tokens:
        raise MalformedPlan("the plan points outside its range")
    without = np.flatnonzero(index < 0).tolist()
    if without != ([form.slots - 1] if form.fused else []):
        raise MalformedPlan("slots without an anchor are in the wrong place")
    anchors = index[index >= 0]
    if len(np.unique(anchors)) != len(anchors):
        raise MalformedPlan("two slots have the same anchor")
    if index[:prefix].tolist() != list(range(prefix)):
        raise MalformedPlan("prefix tokens are not in place")
    if plan[anchors].tolist() != list(range(len(anchors))):
        raise MalformedPlan("an anchor is not mapped to its own slot")


def _match_gap(signal: Signal, plan: Ints, index: Ints, form: Form) -> Gap:
    tokens, prefix = form.tokens, signal.num_prefix
    if form.slots == tokens:
        if index.tolist() != list(range(tokens)):
            raise MalformedPlan("nothing was to be merged, but tokens moved")
        return Gap()
    sources, targets = _halves(tokens, prefix)
    if index[form.slots - len(targets) :].tolist() != targets.tolist():
        raise MalformedPlan("the destinations are not in the last slots")
    kept, merged = _kept(signal, index), np.setdiff1d(np.arange(tokens), index)
    if not np.isin(kept, sources).all() or not np.isin(merged, sources).all():
        raise MalformedPlan("a token of the wrong half was merged")
    slots = plan[merged]
    if (slots < form.slots - len(targets)).any():
        raise MalformedPlan("a token was dropped, or merged into one that is no destination")

    similarity = cosine(signal.values[sources], signal.values[targets])
    best = similarity.max(axis=1)
    row = {int(token): number for number, token in enumerate(sources)}
    merged_rows, kept_rows = [row[int(token)] for token in merged], [row[int(token)] for token in kept]
    chosen = similarity[merged_rows, slots - (form.slots - len(targets))]
    gaps = [_minus(a, b) for a, b in zip(best[merged_rows], chosen, strict=True)]
    if kept_rows:
        gaps.append(_minus(best[kept_rows].max(), best[merged_rows].min()))
    gaps.append(_order_gap(kept, best[kept_rows], form))
    return Gap(similarity=max(0.0, *gaps))


def _select_gap(signal: Signal, plan: Ints, index: Ints, form: Form) -> Gap:
    score, kept = _order_values(signal), _kept(signal, index)
    rest = np.setdiff1d(np.arange(signal.num_prefix, form.tokens), kept)
    gap = _order_gap(kept, score[kept], form)
    if len(rest):
        gap = max(gap, _minus(score[rest].max(), score[kept].min()))
    if signal.metric is None or not len(rest):
        if (plan[rest] != (form.slots - 1 if form.fused else -1)).any():
            raise MalformedPlan("tokens that were not kept went to the wrong slot")
        return Gap(score=gap)
    if (plan[rest] < signal.num_prefix).any():
        raise MalformedPlan("a token was dropped, or merged into a prefix token")
    similarity = cosine(signal.metric[rest], signal.metric[kept])
    chosen = similarity[np.arange(len(rest)), plan[rest] - signal.num_prefix]
    best = similarity.max(axis=1)
    return Gap(similarity=max(0.0, *(_minus(a, b) for a, b in zip(best, chosen, strict=True))), score=gap)


def _kept(signal: Signal, index: Ints) -> Ints:
    """Kept tokens in slot order, without prefix, destinations and fused slot."""
    kept = index[signal.num_prefix :]
    if signal.op == "TokenMatch":
        kept = kept[: max(0, len(kept) - len(_halves(len(signal.values), signal.num_prefix)[1]))]
    return kept[kept >= 0]


def _halves(tokens: int, prefix: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sources and destinations: even and odd positions of the whole sequence, without the prefix."""
    return np.arange(prefix + prefix % 2, tokens, 2), np.arange(prefix + 1 - prefix % 2, tokens, 2)


def _order_values(signal: Signal) -> Floats:
    """What kept tokens may be sorted by: [N]."""
    if signal.op != "TokenMatch":
        score = signal.values.astype(np.float64)
        return np.where(np.isnan(score), -np.inf, score)
    values = np.zeros(len(signal.values))
    sources, targets = _halves(len(values), signal.num_prefix)
    if len(sources) and len(targets):
        values[sources] = cosine(signal.values[sources], signal.values[targets]).max(axis=1)
    return values


def _order_gap(kept: Ints, values: Floats, form: Form) -> float:
    sorted_by_position = bool((np.diff(kept) > 0).all())
    if form.by_position and sorted_by_position:
        return 0.0
    if not form.by_signal:
        raise MalformedPlan("kept tokens are in another order")
    return _rise(values)


def _rise(values: Floats) -> float:
    """By how much a sequence that should fall rises: the largest later value minus an earlier one, at least 0."""
    if len(values) < 2:
        return 0.0
    later = np.maximum.accumulate(values[::-1])[::-1][1:]
    return max(0.0, *(_minus(a, b) for a, b in zip(later, values[:-1], strict=True)))


def _minus(a: float, b: float) -> float:
    """Difference of two numbers, 0 for equal infinities."""
    return 0.0 if a == b else float(a - b)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> Floats:
    """Cosine similarities in float64: [N, C] and [K, C] to [N, K]. Zero vectors give 0, NaN orders as -inf."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide_a, axis=1)[:, None] * np.linalg.norm(wide_b, axis=1)[None]
    with np.errstate(invalid="ignore"):  # infinities give NaN, which orders last
        dots = wide_a @ wide_b.T
        similarity = np.divide(dots, norms, out=np.zeros_like(dots), where=norms != 0)
    return np.where(np.isnan(similarity), -np.inf, similarity)
