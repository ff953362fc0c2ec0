"""Similarity of two sets of vectors, with the precision and the special cases the planners promise."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor, *, eps: float, deterministic: bool) -> Tensor:
    """Cosine similarity of every row of `a` with every row of `b` (docs/ops.md, rules 1 and 2).

    Norms and dots accumulate in float64, so that the float32 result does not depend on the order of summation;
    `deterministic=False` accumulates in float32. A vector whose norm is at most `eps` has similarity 0 with
    everything. NaN becomes -inf: it is never the best.

    Args:
        a: [B, Na, C] any float dtype.
        b: [B, Nb, C], same dtype.
        eps: Largest norm that counts as zero.
        deterministic: Accumulate in float64.

    Returns:
        [B, Na, Nb] float32.
    """
    wide = torch.float64 if deterministic else torch.float32
    a, b = a.to(wide), b.to(wide)
    norm_a = a.square().sum(-1, keepdim=True).sqrt()
    norm_b = b.square().sum(-1, keepdim=True).sqrt().transpose(1, 2)
    similarity = (a @ b.transpose(1, 2)) / (norm_a * norm_b)
    similarity = similarity.masked_fill((norm_a <= eps) | (norm_b <= eps), 0.0).float()
    return unordered_last(similarity)


def unordered_last(values: Tensor) -> Tensor:
    """Replace NaN by -inf, so that it sorts behind every number (docs/ops.md, rule 2)."""
    return values.masked_fill(values.isnan(), float("-inf"))


def best_first(values: Tensor) -> Tensor:
    """Indices that sort the last dimension descending, ties to the lower index (docs/ops.md, rule 4).

    torch.topk and an unstable argsort break ties differently on each device; a stable sort does not.
    """
    return torch.sort(values, dim=-1, descending=True, stable=True).indices
