"""Plans that differ only in the order of their slots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import StepTrace

Slots = NDArray[np.int64]


def matching_slots(ours: StepTrace, theirs: StepTrace) -> Slots | None:
    """Where the other plan has each slot of ours, if both send the same tokens to the same anchors.

    Args:
        ours: One image.
        theirs: One image, the same incoming tokens.

    Returns:
        int64 [M], a permutation; None if the plans differ in more than order.
    """
    index, other = ours.index[0], theirs.index[0]
    plan, other_plan = ours.map[0], theirs.map[0]
    if index.shape != other.shape or plan.shape != other_plan.shape:
        return None
    # anchors are distinct, but for at most one slot without any
    if len(np.unique(index)) != len(index) or not np.array_equal(np.sort(index), np.sort(other)):
        return None
    by_anchor = np.argsort(other, kind="stable")
    slots: Slots = by_anchor[np.searchsorted(other, index, sorter=by_anchor)].astype(np.int64)
    expected = np.where(plan < 0, -1, slots[plan])
    return slots if np.array_equal(expected, other_plan) else None


def in_the_order_of(theirs: StepTrace, moved: Slots) -> StepTrace:
    """A step as it would be if its incoming tokens stood in our order.

    Args:
        theirs: One image.
        moved: int64 [N], the position in `theirs` of each of our tokens.
    """
    if theirs.map.shape[1] != len(moved):
        return theirs  # other counts: the comparison says so
    back = np.argsort(moved)
    index = np.where(theirs.index < 0, theirs.index, back[theirs.index]).astype(np.int32)
    metric = None if theirs.metric is None else theirs.metric[:, moved]
    return replace(theirs, map=theirs.map[:, moved], index=index, signal=theirs.signal[:, moved], metric=metric)
