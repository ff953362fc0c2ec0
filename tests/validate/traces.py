"""Synthetic traces: signals, and the plans that the oracle of tests/ops makes from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.ops.oracle import match, select
from tmdeploy.backends.base import StepTrace, Trace
from tmdeploy.validate.decisions import Decision, compare_decisions

PREFIX = 1
TIE_GAP = 1e-5


def metric_of(tokens: int = 17, seed: int = 0, channels: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, channels)).astype(np.float32)


def score_of(tokens: int = 17, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(tokens).astype(np.float32)


def match_step(metric: np.ndarray, total: int, prefix: int = PREFIX, order: str = "tome", block: int = 0) -> StepTrace:
    """One image: metric [N, C]."""
    plan, index, _ = match(metric, total, prefix, order)
    return _step("TokenMatch", plan, index, metric, None, block)


def select_step(
    score: np.ndarray,
    keep: int,
    leftover: str = "drop",
    order: str = "score",
    metric: np.ndarray | None = None,
    prefix: int = PREFIX,
    block: int = 0,
) -> StepTrace:
    """One image: score [N]; metric [N, C] for `nearest`."""
    plan, index, _ = select(score, keep, prefix, leftover, order, metric)
    return _step("TokenSelect", plan, index, score, metric if leftover == "nearest" else None, block)


def with_plan(step: StepTrace, plan: object, index: object) -> StepTrace:
    """The same step, another plan for its one image."""
    return replace(step, map=np.asarray(plan, np.int32)[None], index=np.asarray(index, np.int32)[None])


def with_signal(step: StepTrace, signal: np.ndarray) -> StepTrace:
    return replace(step, signal=signal.astype(np.float32)[None])


def trace(*steps: StepTrace) -> Trace:
    """Steps of the same images."""
    images = len(steps[0].map) if steps else 1
    return Trace(np.zeros((images, 10), np.float32), steps)


def batch(*steps: StepTrace) -> StepTrace:
    """Steps of one image each, as one step of a batch."""
    joined = {
        name: np.concatenate([getattr(step, name) for step in steps])
        for name in ("map", "index", "signal", "metric")
        if getattr(steps[0], name) is not None
    }
    return replace(steps[0], **joined)


def judge(
    ours: StepTrace, theirs: StepTrace, prefix: int = PREFIX, tie_gap: float = TIE_GAP, signal_rtol: float = 1e-4
) -> Decision:
    """One step, one image."""
    (decision,) = compare_decisions(
        trace(ours), trace(theirs), num_prefix=prefix, tie_gap=tie_gap, signal_rtol=signal_rtol
    )
    return decision


def _step(
    op: str, plan: np.ndarray, index: np.ndarray, signal: np.ndarray, metric: np.ndarray | None, block: int
) -> StepTrace:
    return StepTrace(
        block=block,
        op=op,
        map=np.asarray(plan, np.int32)[None],
        index=np.asarray(index, np.int32)[None],
        signal=signal.astype(np.float32)[None],
        metric=None if metric is None else metric.astype(np.float32)[None],
    )
