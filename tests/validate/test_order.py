"""A selection that keeps the same tokens in another order took the same decisions, then and later."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.validate.traces import match_step, metric_of, score_of, select_step, trace
from tmdeploy.backends.base import StepTrace
from tmdeploy.validate.decisions import Decision, compare_decisions
from tmdeploy.validate.order import in_the_order_of, matching_slots

LEFTOVERS = ["drop", "fuse", "nearest"]


def _judge(ours: list[StepTrace], theirs: list[StepTrace]) -> Decision:
    (decision,) = compare_decisions(trace(*ours), trace(*theirs), num_prefix=1, tie_gap=1e-5, signal_rtol=1e-3)
    return decision


def _tied_scores(tokens: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Two score rows: the second and third best patch tokens lead one another by 2e-7."""
    score = score_of(tokens)
    order = np.argsort(-score[1:]) + 1
    score[order[2]] = score[order[1]] - np.float32(2e-7)
    other = score.copy()
    other[order[1]], other[order[2]] = score[order[2]], score[order[1]]
    return score, other


def _chain(leftover: str) -> tuple[list[StepTrace], list[StepTrace]]:
    """Two steps; the first of the other chain exchanges slots 2 and 3, and all that follows goes with its tokens."""
    score, other = _tied_scores()
    metric = metric_of(12)
    first, first_other = (select_step(values, 8, leftover, metric=metric) for values in (score, other))
    slots = first.index.shape[1]
    late, late_metric = score_of(slots, 5), metric_of(slots, 6)
    moved = np.arange(slots)
    moved[[2, 3]] = [3, 2]
    second = select_step(late, 4, leftover, metric=late_metric, block=1)
    second_other = select_step(late[moved], 4, leftover, metric=late_metric[moved], block=1)
    return [first, second], [first_other, second_other]


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_later_steps_are_compared_token_by_token(leftover: str):
    ours, theirs = _chain(leftover)
    assert not np.array_equal(ours[0].index, theirs[0].index)
    assert not np.array_equal(ours[1].map, theirs[1].map)
    assert _judge(ours, theirs) == Decision("agree", reordered=True)
    assert _judge(ours, ours) == Decision("agree")


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_another_token_kept_later_is_not_hidden_by_an_earlier_order(leftover: str):
    ours, theirs = _chain(leftover)
    wrong = theirs[1].index.copy()
    dropped = int(np.setdiff1d(np.arange(theirs[1].map.shape[1]), wrong)[0])
    kept = int(wrong[0, 1])
    plan = theirs[1].map.copy()
    plan[0, dropped], plan[0, kept] = plan[0, kept], plan[0, dropped]
    wrong[0, 1] = dropped
    decision = _judge(ours, [theirs[0], replace(theirs[1], map=plan, index=wrong)])
    assert (decision.kind, decision.block) == ("divergent", 1)


def test_an_order_that_scores_do_not_explain_diverges():
    ours = select_step(score_of(12), 8)
    index, plan = ours.index.copy(), ours.map.copy()
    index[0, [1, 4]] = index[0, [4, 1]]
    plan[0, index[0]] = np.arange(index.shape[1])
    decision = _judge([ours], [replace(ours, map=plan, index=index)])
    assert decision.kind == "divergent"


def test_before_a_match_the_order_is_a_decision():
    """Its halves are chosen by position."""
    score, other = _tied_scores()
    first, first_other = select_step(score, 8), select_step(other, 8)
    second = match_step(metric_of(8), 6, block=1)
    decision = _judge([first, second], [first_other, second])
    assert (decision.kind, decision.block) == ("near-tie", 0)


@given(seed=st.integers(0, 1000), keep=st.integers(2, 12), leftover=st.sampled_from(LEFTOVERS))
def test_any_exchange_is_found_and_undone(seed: int, keep: int, leftover: str):
    step = select_step(score_of(12, seed), keep, leftover, metric=metric_of(12, seed))
    slots = step.index.shape[1]
    order = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(slots - 1)])
    where = np.argsort(order)
    plan = np.where(step.map < 0, -1, where[step.map]).astype(np.int32)
    other = replace(step, index=step.index[:, order], map=plan)
    found = matching_slots(step, other)
    assert found is not None
    assert found.tolist() == where.tolist()
    moved = np.random.default_rng(seed).permutation(12)
    shuffled = replace(step, map=step.map[:, moved], index=step.index, signal=step.signal[:, moved])
    shuffled = replace(
        shuffled, index=np.where(step.index < 0, -1, np.argsort(moved)[step.index]).astype(np.int32), metric=None
    )
    back = in_the_order_of(shuffled, np.argsort(moved))
    assert np.array_equal(back.map, step.map)
    assert np.array_equal(back.index, step.index)
    assert np.array_equal(back.signal, step.signal)


def test_plans_that_differ_in_more_than_order():
    step = select_step(score_of(12), 8)
    assert matching_slots(step, select_step(score_of(12, 1), 8)) is None
    assert matching_slots(step, select_step(score_of(12), 7)) is None
    assert matching_slots(step, replace(step, map=np.roll(step.map, 1, axis=1))) is None
    doubled = replace(step, index=np.zeros_like(step.index))
    assert matching_slots(doubled, doubled) is None
