"""TokenSelect, the score-driven planner: the highest scores stay; the rest are dropped, fused or merged."""

from __future__ import annotations

import torch
from torch import Tensor

from tmdeploy.ops.reference.registration import reference
from tmdeploy.ops.reference.similarity import best_first, cosine, unordered_last
from tmdeploy.ops.spec import SELECT, SelectAttributes


@reference(SELECT)
def token_select(
    score: Tensor, slots: Tensor, metric: Tensor | None, kept: Tensor | None, given: SelectAttributes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plan one selection (EViT, arXiv 2202.07800, section 3.2; docs/ops.md).

    Args:
        score: [B, N] float; prefix columns are ignored.
        slots: [M], any dtype: its length is the number of tokens after the step, its contents are not read.
        metric: [B, N, C] float, for `leftover=nearest`.
        kept: [K], any dtype, for `leftover=fuse`: its length is the number of slots without the fused one. M alone
            cannot tell "all kept" from "all but one kept, that one fused". M = K + 1 if K < N, else N.
        given: The attributes, which a call of the op takes one by one.

    Returns:
        map: int32 [B, N], output slot of every token; -1 = dropped.
        index: int32 [B, M], the anchor token of every slot; -1 for the fused slot.
        sim: float32 [B, N], similarity to the destination for merged tokens (`nearest`), 1 elsewhere.
        count: int32 [B], valid slots: M.

    Raises:
        ValueError: M or K is not possible, a missing input, or an attribute value that the op does not have.
    """
    batch, tokens = score.shape
    total = slots.shape[0]
    stay = kept.shape[0] if kept is not None else total
    _check(tokens, total, stay, given, has_kept=kept is not None, has_metric=metric is not None)
    num_prefix = given.num_prefix
    device = score.device
    ranked = best_first(unordered_last(score[:, num_prefix:].float())) + num_prefix
    chosen, rest = ranked[:, : stay - num_prefix], ranked[:, stay - num_prefix :]
    if given.order == "index":
        chosen = chosen.sort(dim=-1).values

    sim = torch.ones(batch, tokens, device=device)
    prefix = torch.arange(num_prefix, device=device).expand(batch, num_prefix)
    anchors = torch.cat([prefix, chosen], dim=1)
    plan = torch.full((batch, tokens), -1, dtype=torch.int64, device=device)
    plan.scatter_(1, anchors, torch.arange(stay, device=device).expand(batch, stay))
    index = anchors
    if given.leftover == "fuse" and total > stay:
        plan.scatter_(1, rest, stay)
        index = torch.cat([anchors, torch.full((batch, 1), -1, device=device)], dim=1)
    elif given.leftover == "nearest" and rest.shape[1] > 0:
        assert metric is not None  # noqa: S101 - checked above
        by_index = chosen.sort(dim=-1).values  # ties go to the lower token index, whatever the slot order
        similarity = cosine(
            _rows(metric, rest), _rows(metric, by_index), eps=given.metric_eps, deterministic=given.deterministic
        )
        best, nearest = similarity.max(dim=-1)
        plan.scatter_(1, rest, plan.gather(1, by_index.gather(1, nearest)))
        sim.scatter_(1, rest, best)
    count = torch.full((batch,), total, dtype=torch.int32, device=device)
    return plan.int(), index.int(), sim, count


def _check(tokens: int, total: int, stay: int, given: SelectAttributes, *, has_kept: bool, has_metric: bool) -> None:
    leftover, num_prefix = given.leftover, given.num_prefix
    if has_kept != (leftover == "fuse"):
        raise ValueError("TokenSelect: input kept belongs to leftover=fuse, and only to it")
    if leftover == "nearest" and not has_metric:
        raise ValueError("TokenSelect: leftover=nearest needs input metric")
    if not num_prefix < stay <= tokens:
        raise ValueError(f"TokenSelect cannot keep {stay} of {tokens} tokens with {num_prefix} prefix tokens")
    if leftover == "fuse" and total != stay + (stay < tokens):
        raise ValueError(f"TokenSelect: {stay} kept of {tokens} tokens and a fused one do not make {total} slots")


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
