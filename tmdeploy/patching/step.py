"""One reduction step: plan, then reduce."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tmdeploy.methods.spec import Leftover, Match, MethodSpec, Metric, Select, Weight
from tmdeploy.ops.reference import token_match, token_reduce, token_select
from tmdeploy.patching.signals import Signals


@dataclass(frozen=True)
class Counts:
    """Where the counts of a step come from: 1-D tensors whose lengths they are (docs/ops.md, "Counts")."""

    slots: Tensor
    kept: Tensor | None = None


@dataclass(frozen=True)
class StepTensors:
    """One step as it happened, for traces: names and shapes as in `backends.base.StepTrace`."""

    block: int
    op: str
    map: Tensor
    index: Tensor
    signal: Tensor
    metric: Tensor | None
    x_in: Tensor
    size_in: Tensor | None
    x_out: Tensor
    size_out: Tensor | None


def reduction_step(
    spec: MethodSpec,
    block: int,
    x: Tensor,
    signals: Signals,
    size: Tensor | None,
    counts: Counts,
    *,
    num_prefix: int,
    has_class_token: bool,
    deterministic: bool = True,
) -> StepTensors:
    """Reduce the tokens of one block.

    Args:
        spec: The method.
        block: 0-based index, for the record.
        x: [B, N, D], after the attention's residual.
        signals: What the planner decides on.
        size: float32 [B, N]; None before the first step.
        counts: How many tokens remain.
        num_prefix: Prefix tokens P.
        has_class_token: ToMe leaves kept tokens in order of similarity where there is no class token.
        deterministic: Planner accumulates in float64.

    Returns:
        The step; `x_out` [B, M, D] and `size_out` float32 [B, M] (None where the method keeps no sizes) go on.
    """
    planner = spec.planner
    assert planner is not None  # noqa: S101 - the caller has no step without one
    if size is None:
        size = torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
    metric = x if planner.metric is Metric.TOKENS else signals.metric
    sim: Tensor
    if isinstance(planner, Match):
        assert metric is not None  # noqa: S101 - `attend` computed it
        order = "tome" if has_class_token else "tome_unsorted"
        plan, index, sim = token_match(
            metric, counts.slots, num_prefix=num_prefix, order=order, deterministic=deterministic
        )
        signal: Tensor = metric
        leftover_metric = None
    else:
        assert signals.score is not None  # noqa: S101
        signal = signals.score
        leftover_metric = metric if planner.leftover is Leftover.NEAREST else None
        plan, index, sim, _ = token_select(
            signal,
            counts.slots,
            metric=leftover_metric,
            kept=counts.kept,
            num_prefix=num_prefix,
            leftover=planner.leftover.value,
            order=planner.order,
            deterministic=deterministic,
        )
    weight = _weight(spec, size, signals, plan, index, sim)
    reduced, wsum = token_reduce(x, plan, index, weight, mode=spec.mode.value)
    size_out: Tensor | None = None
    if spec.tracks_size:
        # sizes are summed: the weight sum of a reduce that is weighted by size
        size_out = wsum if spec.weight is Weight.SIZE else token_reduce(size[..., None], plan, index, size, "wmean")[1]
    op = "TokenMatch" if isinstance(planner, Match) else "TokenSelect"
    return StepTensors(
        block, op, plan, index, signal, leftover_metric, x, size if spec.tracks_size else None, reduced, size_out
    )


def _weight(spec: MethodSpec, size: Tensor, signals: Signals, plan: Tensor, index: Tensor, sim: Tensor) -> Tensor:
    if spec.weight is Weight.SIZE:
        return size
    if spec.weight is Weight.EXP_SIM:
        return sim.exp()
    if spec.weight in {Weight.SCORE, Weight.KEPT_ONE}:
        score = signals.score
        assert score is not None and isinstance(spec.planner, Select)  # noqa: S101, PT018
        if spec.weight is Weight.SCORE:
            return score
        fused = index.long().gather(1, plan.long()) < 0  # its slot has no anchor
        return torch.where(fused, score, torch.ones_like(score))
    return torch.ones_like(size)
