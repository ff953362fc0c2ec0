"""Self-attention of a timm-style block that also hands out what it worked on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmdeploy.patching.signals import Attention


def attend(attn: nn.Module, x: Tensor, *, size: Tensor | None, num_prefix: int = 0) -> tuple[Tensor, Attention]:
    """Run `attn` on x, with log(size) added to the logits where size is given.

    Args:
        attn: Module with `qkv`, `proj`, `num_heads` and optionally `q_norm`, `k_norm`, `norm`, `gate`, `attn_drop`,
            `proj_drop`, as timm's Attention.
        x: [B, N, C], normalised.
        size: float32 [B, N] for proportional attention (ToMe, section 3.3); None for the plain softmax.
        num_prefix: Prefix tokens.

    Returns:
        The attention's output [B, N, C], before LayerScale and residual; what it worked on.
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
    return out, Attention(x, q, k, v, scale, bias, num_prefix)


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


def _dropout(attn: nn.Module) -> float:
    """Of the attention weights, in training."""
    drop = getattr(attn, "attn_drop", None)
    return drop.p if attn.training and isinstance(drop, nn.Dropout) else 0.0


def _call(module: nn.Module, name: str, x: Tensor) -> Tensor:
    result: Tensor = module.get_submodule(name)(x)
    return result


def _optional(module: nn.Module, name: str, x: Tensor) -> Tensor:
    child = getattr(module, name, None)
    return child(x) if isinstance(child, nn.Module) else x
