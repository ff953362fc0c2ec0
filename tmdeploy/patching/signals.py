"""What planners decide on: a function for every score and metric that methods share, and calling a method's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tmdeploy.errors import UnsupportedModel
from tmdeploy.methods.spec import CustomSignal, Match, Metric, Score, Select


@dataclass(frozen=True)
class Attention:
    """What a block's attention worked on.

    Attributes:
        x: [B, N, D], its input; normalised, where the block normalises first.
        q: [B, H, N, C], queries.
        k: [B, H, N, C], keys.
        v: [B, H, N, C], values.
        scale: Scale of the logits.
        bias: float32 [B, 1, 1, N], log(size) for proportional attention; None for the plain softmax.
        num_prefix: Prefix tokens.
    """

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    bias: Tensor | None
    num_prefix: int

    def rows(self, asking: slice) -> Tensor:
        """Rows of the attention matrix, [B, H, rows, N], in float32 whatever the model's precision."""
        logits = (self.q[:, :, asking].float() * self.scale) @ self.k.float().transpose(-2, -1)
        if self.bias is not None:
            logits = logits + self.bias
        return logits.softmax(dim=-1)

    def to(self, dtype: torch.dtype) -> Attention:
        """The same, with `x`, `q`, `k` and `v` of this type."""
        return dataclasses.replace(self, **{name: getattr(self, name).to(dtype) for name in ("x", "q", "k", "v")})


@dataclass(frozen=True)
class Signals:
    """What a planner decides on: metric [B, N, C] and score [B, N], float32, as far as it asks for them."""

    metric: Tensor | None = None
    score: Tensor | None = None


# A method's own: of the tokens [B, N, D] after attention and its residual, and the attention.
Compute = Callable[[Tensor, Attention], Tensor]


def shared_signals(planner: Match | Select, attention: Attention) -> Signals:
    """The planner's signals, but for the tokens themselves and the method's own.

    A score is computed on the side, from the class token's row alone where it can be: the attention itself stays a
    plain softmax(QK^T)V that a backend can fuse (docs/architecture.md).
    """
    metric = planner.metric
    vectors = None if metric is None or isinstance(metric, CustomSignal) else METRICS[metric](attention)
    score = planner.score if isinstance(planner, Select) else None
    importance = None if score is None or isinstance(score, CustomSignal) else SCORES[score](attention)
    return Signals(vectors, importance)


def own_signals(
    planner: Match | Select,
    shared: Signals,
    compute: Mapping[CustomSignal, Compute],
    tokens: Tensor,
    attention: Attention,
) -> Signals:
    """The planner's signals, all of them.

    Args:
        planner: Says which.
        shared: What `shared_signals` found.
        compute: What computes the method's own.
        tokens: [B, N, D] after attention and its residual.
        attention: What the block's attention worked on.

    Raises:
        UnsupportedModel: A function of the method's returns something else than its kind of signal.
    """
    metric, score = shared.metric, shared.score
    if isinstance(planner.metric, CustomSignal):
        metric = _call(planner.metric, compute, tokens, attention, rank=3)
    if isinstance(planner, Select) and isinstance(planner.score, CustomSignal):
        score = _call(planner.score, compute, tokens, attention, rank=2)
    return Signals(metric, score)


def _call(
    signal: CustomSignal, compute: Mapping[CustomSignal, Compute], tokens: Tensor, attention: Attention, *, rank: int
) -> Tensor:
    function = compute[signal]
    weights = function.parameters() if isinstance(function, torch.nn.Module) else ()
    dtype = next((weight.dtype for weight in weights), torch.float32)
    found = function(tokens.to(dtype), attention.to(dtype))
    shaped = isinstance(found, Tensor) and found.dim() == rank
    if not shaped or not (torch.compiler.is_exporting() or found.shape[:2] == tokens.shape[:2]):
        wanted = "a score [batch, tokens]" if rank == 2 else "a metric [batch, tokens, channels]"
        told = f"{list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise UnsupportedModel(
            f"{signal.compute} returns {told} for tokens {list(tokens.shape)}", remedy=f"Let it return {wanted}"
        )
    return found.float()


def _key_norm(attention: Attention) -> Tensor:
    norm = _norm(attention.k.float()).mean(dim=1)
    return norm / norm.sum(dim=-1, keepdim=True)


def _class_row(attention: Attention) -> Tensor:
    """The class token's, [B, H, N]."""
    return attention.rows(slice(1))[:, :, 0]


METRICS: dict[Metric, Callable[[Attention], Tensor | None]] = {
    Metric.KEYS: lambda attention: _head_mean(attention.k.float()),
    Metric.TOKENS: lambda _: None,  # the step has them
}
SCORES: dict[Score, Callable[[Attention], Tensor]] = {
    Score.CLS: lambda attention: _class_row(attention).mean(dim=1),
    Score.CLS_VALUE: lambda attention: (_class_row(attention) * _norm(attention.v.float())).mean(dim=1),
    Score.ATS: lambda attention: (
        _class_row(attention).sum(dim=1) * _norm(attention.v.float().transpose(1, 2).flatten(2))
    ),
    Score.RECEIVED: lambda attention: attention.rows(slice(attention.num_prefix, None)).mean(dim=(1, 2)),
    Score.KEY_NORM: _key_norm,
}


def _head_mean(k: Tensor) -> Tensor:
    """Mean over the heads: [B, H, N, C] to [B, N, C]."""
    if not torch.compiler.is_exporting():
        return k.mean(dim=1)
    # ONNX Runtime's ReduceMean over an axis that is not the last takes three times as long as this product
    batch, heads, tokens, width = k.shape
    weights = torch.full((1, heads), 1.0 / heads, dtype=k.dtype, device=k.device)
    return (weights @ k.reshape(batch, heads, tokens * width)).reshape(batch, tokens, width)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(dim=-1).sqrt()
