"""Self-attention of a timm-style block that also hands out what a planner decides on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmdeploy.methods.spec import Match, Metric, Score, Select


@dataclass(frozen=True)
class Signals:
    """What a reduction step needs from the attention: metric [B, N, C] and score [B, N], float32, where asked for."""

    metric: Tensor | None = None
    score: Tensor | None = None


def attend(
    attn: nn.Module, x: Tensor, *, size: Tensor | None, planner: Match | Select | None, num_prefix: int = 0
) -> tuple[Tensor, Signals]:
    """Run `attn` on x, with log(size) added to the logits where size is given, and compute the planner's signals.

    The score of a selection is computed on the side, from the class token's row alone where it can be: the attention
    itself stays a plain softmax(QK^T)V that a backend can fuse (docs/architecture.md).

    Args:
        attn: Module with `qkv`, `proj`, `num_heads` and optionally `q_norm`, `k_norm`, `norm`, `gate`, `attn_drop`,
            `proj_drop`, as timm's Attention.
        x: [B, N, C], normalised.
        size: float32 [B, N] for proportional attention (ToMe, section 3.3); None for the plain softmax.
        planner: Whose signals to compute; None computes none.
        num_prefix: Prefix tokens, whose attention a score of attention received leaves out.

    Returns:
        The attention's output [B, N, C], before LayerScale and residual; the signals.
    """
    batch, tokens, _ = x.shape
    qkv = _call(attn, "qkv", x)
    heads = int(attn.num_heads)  # type: ignore[arg-type]
    width = qkv.shape[-1] // (3 * heads)
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = _optional(attn, "q_norm", q), _optional(attn, "k_norm", k)
    scale = float(getattr(attn, "scale", width**-0.5))
    bias = None if size is None else size.log()[:, None, None, :]
    attended = _softmax_attention(q, k, v, scale, bias, dropout=_dropout(attn))
    out = _optional(attn, "norm", attended.transpose(1, 2).reshape(batch, tokens, heads * width))
    if isinstance(gate := getattr(attn, "gate", None), nn.Module):
        out = out * gate(x).sigmoid()
    out = _optional(attn, "proj_drop", _call(attn, "proj", out))
    return out, _signals(planner, q, k, v, scale, bias, num_prefix)


def _softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None, *, dropout: float) -> Tensor:
    if not torch.compiler.is_exporting():
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    # Spelled out for export: the exporter's own decomposition scales q and k separately, and at opset 23 it emits
    # Attention with a [B, 1, 1, N] bias, which ONNX Runtime's CPU provider rejects.
    logits = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    return logits.softmax(dim=-1) @ v


def _signals(
    planner: Match | Select | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | None,
    num_prefix: int,
) -> Signals:
    if planner is None:
        return Signals()
    metric = _head_mean(k.float()) if planner.metric is Metric.KEYS else None
    if isinstance(planner, Match):
        return Signals(metric=metric)
    if planner.score is Score.KEY_NORM:
        norm = _norm(k.float()).mean(dim=1)
        return Signals(metric=metric, score=norm / norm.sum(dim=-1, keepdim=True))
    # rows of the attention matrix, in float32 whatever the model's precision
    asking = q[:, :, num_prefix:] if planner.score is Score.RECEIVED else q[:, :, :1]
    logits = (asking.float() * scale) @ k.float().transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    rows = logits.softmax(dim=-1)  # [B, H, 1 or N - P, N]
    if planner.score is Score.RECEIVED:
        return Signals(metric=metric, score=rows.mean(dim=(1, 2)))
    row = rows[:, :, 0]  # [B, H, N]
    if planner.score is Score.CLS:
        score = row.mean(dim=1)
    elif planner.score is Score.CLS_VALUE:
        score = (row * _norm(v.float())).mean(dim=1)
    else:
        score = row.sum(dim=1) * _norm(v.float().transpose(1, 2).flatten(2))
    return Signals(metric=metric, score=score)


def _head_mean(k: Tensor) -> Tensor:
    """Mean over the heads: [B, H, N, C] to [B, N, C]."""
    if not torch.compiler.is_exporting():
        return k.mean(dim=1)
    # ONNX Runtime's ReduceMean over an axis that is not the last takes three times as long as this product
    batch, heads, tokens, width = k.shape
    weights = torch.full((1, heads), 1.0 / heads, dtype=k.dtype, device=k.device)
    return (weights @ k.reshape(batch, heads, tokens * width)).reshape(batch, tokens, width)


def _dropout(attn: nn.Module) -> float:
    """Of the attention weights, in training."""
    drop = getattr(attn, "attn_drop", None)
    return drop.p if attn.training and isinstance(drop, nn.Dropout) else 0.0


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(dim=-1).sqrt()


def _call(module: nn.Module, name: str, x: Tensor) -> Tensor:
    result: Tensor = module.get_submodule(name)(x)
    return result


def _optional(module: nn.Module, name: str, x: Tensor) -> Tensor:
    child = getattr(module, name, None)
    return child(x) if isinstance(child, nn.Module) else x
