"""TokenMatch, the similarity-driven planner: r tokens of one half merge into their most similar token of the other."""

from __future__ import annotations

import torch
from torch import Tensor

from tmdeploy.ops.limits import r_limit
from tmdeploy.ops.reference.registration import reference
from tmdeploy.ops.reference.similarity import best_first, cosine
from tmdeploy.ops.spec import MATCH, MatchAttributes


@reference(MATCH)
def token_match(metric: Tensor, slots: Tensor, given: MatchAttributes) -> tuple[Tensor, Tensor, Tensor]:
    """Plan one bipartite soft match (ToMe, arXiv 2210.09461, section 3.1; docs/ops.md).

    Tokens at even positions are A, at odd positions B; the first `num_prefix` take no part. Every A token proposes its
    most similar B token; the r = N - M best proposals are merged. Ties go to the lower token index.

    Args:
        metric: [B, N, C] float.
        slots: [M], any dtype: its length is the number of tokens after the step, its contents are not read.
        given: The attributes, which a call of the op takes one by one.

    Returns:
        map: int32 [B, N], output slot of every token.
        index: int32 [B, M], the anchor token of every slot.
        sim: float32 [B, N], similarity to the destination for merged tokens, 1 elsewhere.

    Raises:
        ValueError: M is not between N - (N - P) // 2 and N, or an attribute value that the op does not have.
    """
    num_prefix = given.num_prefix
    batch, tokens, _ = metric.shape
    removed = tokens - slots.shape[0]
    limit = r_limit(tokens, num_prefix)
    if not 0 <= removed <= limit:
        raise ValueError(f"TokenMatch cannot merge {removed} of {tokens} tokens with {num_prefix} prefix tokens")
    device = metric.device
    sim = torch.ones(batch, tokens, device=device)
    if removed == 0:
        identity = torch.arange(tokens, dtype=torch.int32, device=device).expand(batch, tokens)
        return identity.clone(), identity.clone(), sim

    first_a, first_b = num_prefix + num_prefix % 2, num_prefix + 1 - num_prefix % 2
    similarity = cosine(
        metric[:, first_a::2], metric[:, first_b::2], eps=given.metric_eps, deterministic=given.deterministic
    )
    best, destination = similarity.max(dim=-1)
    ranked = best_first(best)
    source, kept = ranked[:, :removed], ranked[:, removed:]
    if given.order == "tome":
        kept = kept.sort(dim=-1).values

    prefix = torch.arange(num_prefix, device=device).expand(batch, num_prefix)
    targets = torch.arange(first_b, tokens, 2, device=device).expand(batch, -1)
    index = torch.cat([prefix, 2 * kept + first_a, targets], dim=1)
    slot = torch.arange(index.shape[1], device=device).expand(batch, -1)
    source_token = 2 * source + first_a
    plan = torch.empty(batch, tokens, dtype=torch.int64, device=device)
    plan.scatter_(1, index, slot)
    plan.scatter_(1, source_token, destination.gather(1, source) + num_prefix + kept.shape[1])
    sim.scatter_(1, source_token, best.gather(1, source))
    return plan.int(), index.int(), sim
