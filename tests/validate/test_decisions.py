from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.validate.traces import (
    batch,
    judge,
    match_step,
    metric_of,
    score_of,
    select_step,
    trace,
    with_plan,
    with_signal,
)
from tmdeploy.backends.base import StepTrace
from tmdeploy.validate.decisions import compare_decisions

SELECTIONS = [("drop", "score"), ("drop", "index"), ("fuse", "score"), ("nearest", "index"), ("nearest", "score")]


def _unit(angle: float) -> list[float]:
    return [np.cos(angle), np.sin(angle)]


def _two_destinations(lead: float) -> np.ndarray:
    """Class token, destinations 1 and 3, source 2 between them, nearer to 1 by `lead` in similarity; 4 is far away.

    cos(0.5 - d) - cos(0.5 + d) = 2 sin(0.5) sin(d)
    """
    d = np.arcsin(lead / (2 * np.sin(0.5)))
    return np.array([[1, 0], _unit(0.0), _unit(0.5 - d), _unit(1.0), _unit(3.5)], np.float32)


def _steps() -> dict[str, StepTrace]:
    metric, score = metric_of(), score_of()
    steps = {"match": match_step(metric, 12), "match all": match_step(metric, 9)}
    for leftover, order in SELECTIONS:
        steps[f"{leftover} {order}"] = select_step(score, 6, leftover, order, metric)
    return steps


STEPS = _steps()
MATCHES, SELECTS = ([name for name, step in STEPS.items() if step.op == op] for op in ("TokenMatch", "TokenSelect"))


@pytest.mark.parametrize("name", STEPS)
def test_equal_plans_agree_whatever_the_signals(name: str):
    step = STEPS[name]
    assert judge(step, with_signal(step, step.signal[0] + 1)).kind == "agree"


def test_another_destination_of_nearly_equal_similarity_is_a_near_tie():
    ours, theirs = match_step(_two_destinations(2e-6), 4), match_step(_two_destinations(-2e-6), 4)
    decision = judge(ours, theirs)
    assert (decision.kind, decision.block, decision.tokens) == ("near-tie", 0, 1)
    assert decision.gap == pytest.approx(2e-6, rel=0.1)
    assert decision.signal_error > 0


def test_another_set_of_sources_of_nearly_equal_similarity_is_a_near_tie():
    # sources 2 and 4 are equally near to destination 1, but for 1e-6
    def metric(delta: float) -> np.ndarray:
        return np.array([[1, 0], _unit(0.0), _unit(0.3 - delta), _unit(3.0), _unit(-0.3)], np.float32)

    ours, theirs = match_step(metric(1.5e-6), 4), match_step(metric(-1.5e-6), 4)
    decision = judge(ours, theirs)
    assert decision.kind == "near-tie"
    assert decision.gap == pytest.approx(np.sin(0.3) * 1.5e-6, rel=0.3)
    assert decision.tokens == 2


def test_an_exact_tie_may_go_either_way():
    metric = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)  # 2 is as near to 1 as to 3
    ours = match_step(metric, 4)
    assert ours.map[0].tolist() == [0, 2, 2, 3, 1]
    decision = judge(ours, with_plan(ours, [0, 2, 3, 3, 1], ours.index[0]))
    assert decision.kind == "near-tie"
    assert decision.gap < 1e-12


def test_scores_that_swap_are_a_near_tie():
    score = score_of()
    order = np.argsort(-score[1:]) + 1
    other = score.copy()
    score[order[3]] = score[order[2]] - np.float32(1e-6)
    other[order[3]], other[order[2]] = score[order[2]], score[order[3]]
    decision = judge(select_step(score, 3), select_step(other, 3))  # across the cut
    assert (decision.kind, decision.tokens) == ("near-tie", 2)
    assert decision.gap == pytest.approx(1e-6, rel=0.1)
    within = judge(select_step(score, 8), select_step(other, 8))  # the same tokens in another order
    assert (within.kind, within.reordered) == ("agree", True)
    assert judge(select_step(score, 8, order="index"), select_step(other, 8, order="index")).kind == "agree"


def test_a_leftover_that_goes_to_another_of_two_near_tokens_is_a_near_tie():
    score = np.array([0, 0.9, 0.1, 0.8, 0.05], np.float32)

    def step(lead: float) -> StepTrace:
        return select_step(score, 2, "nearest", "index", _two_destinations(lead))

    decision = judge(step(3e-6), step(-3e-6))
    assert decision.kind == "near-tie"
    assert decision.gap == pytest.approx(3e-6, rel=0.1)


def test_without_a_prefix_kept_tokens_may_swap_by_similarity():
    metric = metric_of(12, 3)
    ours = match_step(metric, 10, prefix=0, order="tome_unsorted")
    kept = ours.index[0][:4]
    assert kept.tolist() != sorted(kept.tolist())
    swapped = _swap_slots(ours, 1, 2)
    decision = judge(ours, swapped, prefix=0)
    assert decision.kind == "divergent"
    assert 1e-5 < decision.gap < 1  # a matter of a gap, but of one too large

    metric[kept[2]] = metric[kept[1]] + np.float32(1e-6)
    tied = match_step(metric, 10, prefix=0, order="tome_unsorted")
    assert set(tied.index[0][:4].tolist()) == set(kept.tolist())
    assert judge(tied, _swap_slots(tied, 1, 2), prefix=0).kind == "near-tie"


def test_with_a_prefix_an_equal_similarity_does_not_excuse_another_order():
    metric = metric_of()
    first, second = [token for token in match_step(metric, 14).index[0].tolist() if token and token % 2 == 0][:2]
    metric[first] = metric[second]
    ours = match_step(metric, 14)
    slots = [ours.index[0].tolist().index(token) for token in (first, second)]
    decision = judge(ours, _swap_slots(ours, *slots))
    assert decision.kind == "divergent"
    assert "another order" in decision.reason


@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(4, 24),
    prefix=st.integers(0, 3),
    share=st.floats(0, 1),
    size=st.sampled_from([0.0, 1e-7, 1e-6]),
)
def test_rounding_upstream_never_diverges_a_match(seed: int, tokens: int, prefix: int, share: float, size: float):
    limit = (tokens - prefix) // 2
    total = tokens - round(share * limit)
    rng = np.random.default_rng(seed)
    metric = rng.integers(-1, 2, (tokens, 3)).astype(np.float32)  # full of ties and zero vectors
    other = (metric * (1 + size * rng.standard_normal(metric.shape))).astype(np.float32)
    order = "tome" if prefix else "tome_unsorted"
    ours, theirs = (match_step(values, total, prefix, order) for values in (metric, other))
    decision = judge(ours, theirs, prefix)
    assert decision.kind in {"agree", "near-tie"}, decision


@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(4, 24),
    prefix=st.integers(0, 3),
    share=st.floats(0, 1),
    form=st.sampled_from(SELECTIONS),
)
def test_rounding_upstream_never_diverges_a_selection(
    seed: int, tokens: int, prefix: int, share: float, form: tuple[str, str]
):
    keep = 1 + round(share * (tokens - prefix - 1))
    rng = np.random.default_rng(seed)
    score, metric = rng.integers(0, 4, tokens) / 4, rng.integers(-1, 2, (tokens, 3)).astype(np.float32)
    ours, theirs = (
        select_step(
            (score * (1 + size * rng.standard_normal(tokens))).astype(np.float32),
            keep,
            *form,
            (metric * (1 + size * rng.standard_normal(metric.shape))).astype(np.float32),
            prefix,
        )
        for size in (0.0, 1e-6)
    )
    decision = judge(ours, theirs, prefix)
    assert decision.kind in {"agree", "near-tie"}, decision


def _swap_slots(step: StepTrace, a: int, b: int) -> StepTrace:
    """The same decisions, two slots exchanged."""
    plan, index = step.map[0].copy(), step.index[0].copy()
    index[[a, b]] = index[[b, a]]
    exchanged = np.select([plan == a, plan == b], [b, a], plan)
    return with_plan(step, exchanged, index)


def _moved(step: StepTrace, token: int, slot: int) -> StepTrace:
    plan = step.map[0].copy()
    plan[token] = slot
    return with_plan(step, plan, step.index[0])


@pytest.mark.parametrize("name", [name for name in STEPS if name != "match all"])
def test_exchanged_slots_diverge(name: str):
    step = STEPS[name]
    anchored = int((step.index[0] >= 0).sum())
    for a in range(anchored):
        for b in range(a + 1, anchored):
            decision = judge(step, _swap_slots(step, a, b))
            assert decision.kind == "divergent", (a, b, decision)


@pytest.mark.parametrize("name", STEPS)
def test_a_token_mapped_anywhere_else_diverges(name: str):
    step = STEPS[name]
    for token in range(17):
        for slot in range(-2, step.index.shape[1] + 1):
            if slot != step.map[0, token]:
                decision = judge(step, _moved(step, token, slot))
                assert decision.kind == "divergent", (token, slot, decision)


@pytest.mark.parametrize("name", STEPS)
def test_another_anchor_diverges(name: str):
    step = STEPS[name]
    for slot in range(step.index.shape[1]):
        for token in range(-2, 18):
            if token != step.index[0, slot]:
                index = step.index[0].copy()
                index[slot] = token
                assert judge(step, with_plan(step, step.map[0], index)).kind == "divergent", (slot, token)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("shift", [-1, 1])
def test_slots_off_by_one_diverge(name: str, shift: int):
    step = STEPS[name]
    slots = step.index.shape[1]
    shifted = np.where(step.map[0] < 0, -1, (step.map[0] + shift) % slots)
    for plan, index in (
        (shifted, step.index[0]),
        (step.map[0], np.roll(step.index[0], shift)),
        (shifted, np.roll(step.index[0], shift)),
    ):
        assert judge(step, with_plan(step, plan, index)).kind == "divergent"


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("change", [-1, 1])
def test_another_count_diverges(name: str, change: int):
    step = STEPS[name]
    metric, score, slots = metric_of(), score_of(), step.index.shape[1]
    if step.op == "TokenMatch":
        other = match_step(metric, min(17, max(9, slots + change))) if slots + change >= 9 else match_step(metric, 11)
    else:
        leftover, order = name.split()
        other = select_step(score, 6 + change, leftover, order, metric)
    decision = judge(step, other)
    assert decision.kind == "divergent"
    assert f"instead of 17 becoming {slots}" in decision.reason


@pytest.mark.parametrize("leftover", ["drop", "fuse", "nearest"])
def test_the_wrong_sort_order_diverges(leftover: str):
    by_score, by_index = (select_step(score_of(), 6, leftover, order, metric_of()) for order in ("score", "index"))
    assert judge(by_score, by_index).kind == "divergent"
    assert judge(by_index, by_score).kind == "divergent"


def test_the_wrong_leftover_diverges():
    steps = [select_step(score_of(), 6, leftover, "index", metric_of()) for leftover in ("drop", "fuse", "nearest")]
    for ours in steps:
        for theirs in steps:
            if ours is not theirs:
                assert judge(ours, theirs).kind == "divergent"


def test_sorting_ascending_diverges():
    score = score_of()
    step = select_step(score, 6)
    upside_down = with_signal(select_step(-score, 6), score)
    decision = judge(step, upside_down)
    assert decision.kind == "divergent"
    assert decision.gap == pytest.approx(float(score[1:].max() - score[1:].min()))


def test_halves_that_begin_after_the_prefix_diverge():
    """An off-by-one that only shows with an odd prefix: positions counted from the first patch token."""
    metric = metric_of()
    plan, index, _ = _match_from_first_patch(metric)
    assert judge(match_step(metric, 12), with_plan(match_step(metric, 12), plan, index)).kind == "divergent"


def _match_from_first_patch(metric: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    step = match_step(metric[1:], 11, prefix=0, order="tome")
    return np.concatenate([[0], step.map[0] + 1]), np.concatenate([[0], step.index[0] + 1]), None


@pytest.mark.parametrize("lead", [2e-6, 9e-6])
def test_a_planner_that_decides_against_its_own_input_diverges_however_small_the_gap(lead: float):
    ours = match_step(_two_destinations(lead), 4)
    wrong = _moved(ours, 2, 3)
    decision = judge(ours, wrong)
    assert decision.gap == pytest.approx(lead, rel=0.1)
    assert decision.kind == "divergent"
    assert "the candidate's plan does not follow from its own signal" in decision.reason

    decision = judge(wrong, ours)
    assert decision.kind == "divergent"
    assert "the reference's plan does not follow from its own signal" in decision.reason


def test_a_wrong_signal_is_an_upstream_error_and_no_tie():
    metric = metric_of()
    for change in (metric * 0.5, metric + 0.01, metric * np.nan, metric * np.inf):
        theirs = with_plan(match_step(_two_destinations(0), 4), [0], [0])
        theirs = replace(match_step(np.nan_to_num(change), 12), signal=change.astype(np.float32)[None])
        tied = metric.copy()
        ours = match_step(tied, 12)
        if judge(ours, theirs).kind == "agree":  # scaling changes no cosine: flip an exact tie as well
            theirs = _moved(theirs, int(np.setdiff1d(np.arange(17), theirs.index[0])[0]), 11)
        assert judge(ours, theirs).kind == "divergent"


def test_the_size_of_a_signal_error_is_reported():
    ours, theirs = match_step(_two_destinations(2e-6), 4), match_step(_two_destinations(-2e-6), 4)
    off = replace(theirs, signal=theirs.signal * np.float32(1.01))
    decision = judge(ours, off)
    assert decision.kind == "divergent"
    assert "the planner's signal was off by 0.01" in decision.reason
    assert judge(ours, off, signal_rtol=0.02).kind == "near-tie"


def test_the_metric_of_leftovers_is_checked_too():
    score = np.array([0, 0.9, 0.1, 0.8, 0.05], np.float32)
    ours, theirs = (select_step(score, 2, "nearest", "index", _two_destinations(lead)) for lead in (2e-6, -2e-6))
    assert theirs.metric is not None
    decision = judge(ours, replace(theirs, metric=theirs.metric * np.float32(1.01)))
    assert decision.kind == "divergent"
    assert "metric was off by" in decision.reason


def test_nan_scores_come_last_and_are_no_excuse():
    score = score_of()
    score[[3, 5]] = np.nan
    step = select_step(score, 15)
    assert judge(step, step).kind == "agree"
    swapped = _swap_slots(step, 14, 15)
    assert np.isnan(score[swapped.index[0][14]])
    assert judge(step, swapped).kind == "divergent"
    both = _swap_slots(select_step(score, 16), 15, 16)  # two NaN among themselves
    tied = judge(select_step(score, 16), both)
    assert (tied.kind, tied.reordered) == ("agree", True)


def test_a_reduction_of_nothing_must_move_nothing():
    step = match_step(metric_of(), 17)
    assert step.index[0].tolist() == list(range(17))
    decision = judge(step, _swap_slots(step, 4, 6))
    assert decision.kind == "divergent"
    assert "nothing was to be merged" in decision.reason
    grouped = match_step(metric_of(), 16)  # kept, then destinations: what a planner without the special case does
    index = np.concatenate([[0], np.arange(2, 17, 2), np.arange(1, 17, 2)])
    assert judge(step, with_plan(grouped, np.argsort(index), index)).kind == "divergent"


def test_later_blocks_of_an_image_are_not_judged():
    first = [match_step(_two_destinations(lead), 4) for lead in (2e-6, -2e-6)]
    elsewhere = [match_step(metric_of(4, seed), 3, block=1) for seed in (0, 1)]  # downstream: unrelated plans
    kw = {"num_prefix": 1, "tie_gap": 1e-5, "signal_rtol": 1e-4}
    (decision,) = compare_decisions(trace(first[0], elsewhere[0]), trace(first[1], elsewhere[1]), **kw)
    assert (decision.kind, decision.block) == ("near-tie", 0)
    (decision,) = compare_decisions(trace(first[0], elsewhere[0]), trace(first[0], elsewhere[1]), **kw)
    assert (decision.kind, decision.block) == ("divergent", 1)


def test_images_are_judged_one_by_one():
    agreeing = match_step(_two_destinations(0.1), 4)
    tie = [match_step(_two_destinations(lead), 4) for lead in (2e-6, -2e-6)]
    ours = batch(agreeing, tie[0], agreeing, agreeing)
    theirs = batch(agreeing, tie[1], _moved(agreeing, 2, 3), agreeing)
    decisions = compare_decisions(trace(ours), trace(theirs), num_prefix=1, tie_gap=1e-5, signal_rtol=1e-4)
    assert [decision.kind for decision in decisions] == ["agree", "near-tie", "divergent", "agree"]
    assert decisions[2].gap == pytest.approx(0.1, rel=1e-4)
    assert "0.1" in decisions[2].reason or "own signal" in decisions[2].reason


def test_the_limit_is_the_callers():
    ours, theirs = match_step(_two_destinations(2e-6), 4), match_step(_two_destinations(-2e-6), 4)
    assert judge(ours, theirs, tie_gap=1e-6).kind == "divergent"
    assert "is no near-tie" in judge(ours, theirs, tie_gap=1e-6).reason
    assert judge(ours, theirs, tie_gap=0.0).kind == "divergent"


@pytest.mark.parametrize("missing", ["step", "op", "block", "image"])
def test_other_steps_or_images_diverge(missing: str):
    step = STEPS["match"]
    theirs = {
        "step": trace(step),
        "op": trace(step, replace(step, block=1, op="TokenSelect")),
        "block": trace(step, replace(step, block=2)),
        "image": trace(batch(step, step), replace(batch(step, step), block=1)),
    }[missing]
    ours = trace(step, replace(step, block=1))
    (decision,) = compare_decisions(ours, theirs, num_prefix=1, tie_gap=1e-5, signal_rtol=1e-4)
    assert decision.kind == "divergent"
    assert decision.reason


def test_signals_of_other_shapes_diverge():
    step = STEPS["match"]
    theirs = replace(_moved(step, 2, 11), signal=step.signal[..., :4])
    assert judge(step, theirs).kind == "divergent"
