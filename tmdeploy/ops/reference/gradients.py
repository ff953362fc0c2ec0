"""Gradients, so that a model can be trained or fine-tuned with its reduction on.

The planners are piecewise constant: no gradient flows through a plan. TokenReduce is linear in x and smooth in weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tmdeploy.ops.reference.token_match import token_match
from tmdeploy.ops.reference.token_reduce import token_reduce
from tmdeploy.ops.reference.token_select import token_select
from tmdeploy.ops.spec import ReduceAttributes

DIFFERENTIABLE = ("wmean", "sum", "mean", "anchor")


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, plan, index, weight, *attributes = inputs
    ctx.mode, ctx.attributes, ctx.has_weight = ReduceAttributes(*attributes).mode, len(attributes), weight is not None
    ctx.save_for_backward(x, plan, index, weight, *output)


def _backward(ctx: Any, grad_y: Tensor, grad_wsum: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of y [B, M, F] and wsum [B, M] to those of x [B, N, F] and weight [B, N]."""
    if ctx.mode not in DIFFERENTIABLE:
        raise NotImplementedError(f"TokenReduce has no gradient for mode '{ctx.mode}'")
    x, plan, index, weight, y, wsum = ctx.saved_tensors
    slot = plan.long()
    dropped = slot < 0
    slot = slot.clamp_min(0)

    def at_token(values: Tensor) -> Tensor:
        """Spread values [B, M, ...] of the slots over their tokens, [B, N, ...]; 0 for dropped ones."""
        position = slot if values.dim() == 2 else slot[..., None].expand(-1, -1, values.shape[-1])
        spread = values.gather(1, position)
        return spread.masked_fill(dropped if values.dim() == 2 else dropped[..., None], 0.0)

    gradient = at_token(grad_y)
    w = torch.ones_like(dropped, dtype=torch.float32) if weight is None else weight
    share: Tensor
    if ctx.mode == "anchor":
        position = torch.arange(x.shape[1], device=x.device)
        share = (at_token(index.long()) == position).float()
        grad_w = torch.zeros_like(w)
    elif ctx.mode == "mean":
        counts = torch.zeros_like(wsum).scatter_add_(1, slot, (~dropped).float())
        share = at_token(1.0 / counts.clamp_min(1.0))
        grad_w = torch.zeros_like(w)
    elif ctx.mode == "sum":
        share = w
        grad_w = (gradient * x).sum(-1).float()
    else:
        divisor = at_token(torch.where(wsum == 0, torch.ones_like(wsum), wsum))
        divisor = divisor.masked_fill(dropped, 1.0)
        share = w / divisor
        grad_w = (gradient * (x - at_token(y))).sum(-1).float() / divisor
    grad_x = gradient * share[..., None].to(gradient.dtype)
    grad_weight = (grad_w + at_token(grad_wsum)) if ctx.has_weight else None
    return grad_x, None, None, grad_weight, *(None,) * ctx.attributes


def _no_gradient(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
    inputs: int = ctx.inputs
    return (None,) * inputs


def _count(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.inputs = len(inputs)
    ctx.mark_non_differentiable(*output)


token_reduce.register_autograd(_backward, setup_context=_save)
token_match.register_autograd(_no_gradient, setup_context=_count)
token_select.register_autograd(_no_gradient, setup_context=_count)
