"""TokenReduce, which applies a plan: the tokens of every slot become one."""

from __future__ import annotations

import torch
from torch import Tensor

from tmdeploy.ops.reference.registration import reference
from tmdeploy.ops.spec import REDUCE, ReduceAttributes


@reference(REDUCE)
def token_reduce(
    x: Tensor,
    map: Tensor,  # noqa: A002 - the op's input name
    index: Tensor,
    weight: Tensor | None,
    given: ReduceAttributes,
) -> tuple[Tensor, Tensor]:
    """Combine the tokens of every slot (docs/ops.md).

    The sum of a slot starts with its anchor and goes on by ascending token index, in float32 (float64 for float64
    input), and is rounded to x's dtype once.

    Args:
        x: [B, N, F] float.
        map: int32 [B, N], output slot of every token; -1 = dropped.
        index: int32 [B, M], the anchor token of every slot; -1 = none.
        weight: float32 [B, N]; None means 1.
        given: The attributes, which a call of the op takes one by one.

    Returns:
        y: [B, M, F], x's dtype; 0 in slots that nothing maps to.
        wsum: float32 [B, M], sum of the weights of the slot's tokens.

    Raises:
        ValueError: Unknown mode, or a plan that points outside its range.
    """
    mode = given.mode
    batch, tokens, _ = x.shape
    total = index.shape[1]
    slot, anchor = map.long(), index.long()
    if slot.numel() and not (int(slot.min()) >= -1 and int(slot.max()) < total):
        raise ValueError(f"TokenReduce: map points outside the {total} slots")
    if anchor.numel() and not (int(anchor.min()) >= -1 and int(anchor.max()) < tokens):
        raise ValueError(f"TokenReduce: index points outside the {tokens} tokens")

    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    values = x.to(wide)
    group = _Groups(slot, anchor, tokens)
    ones = torch.ones(batch, tokens, device=x.device, dtype=wide)
    w = ones if weight is None else weight.to(wide)
    wsum = group.total(w[..., None])[..., 0]
    has_anchor = (anchor >= 0)[..., None]
    at_anchor = group.at_anchor(values)
    if mode == "anchor":
        y = at_anchor
    elif mode == "sum":
        y = group.total(values * w[..., None])
    elif mode == "wmean":
        divisor = wsum[..., None]
        y = group.total(values * w[..., None]) / divisor.masked_fill(divisor == 0, 1.0)
        y = torch.where((divisor == 0) & has_anchor, at_anchor, y)
    elif mode == "max":
        y = group.largest(values)
    else:
        y = group.total(values) / group.total(ones[..., None]).clamp_min(1.0)
        if mode != "mean":
            norms = values.square().sum(-1, keepdim=True).sqrt()
            reference = y.square().sum(-1, keepdim=True).sqrt() if mode == "mlerp" else group.at_anchor(norms)
            y = y * group.largest(norms) / reference.masked_fill(reference == 0, 1.0)
    return y.to(x.dtype).contiguous(), wsum.float().contiguous()


class _Groups:
    """Sums and maxima over the tokens of every slot; the anchor comes first, the rest by ascending token index."""

    def __init__(self, slot: Tensor, anchor: Tensor, tokens: int) -> None:
        self._total = anchor.shape[1]
        self._anchor = anchor.clamp_min(0)
        self._has_anchor = (anchor >= 0)[..., None]
        position = torch.arange(tokens, device=slot.device)
        self._is_anchor = ((anchor.gather(1, slot.clamp_min(0)) == position) & (slot >= 0))[..., None]
        # dropped tokens go to one more slot, which is cut off
        self._slot = torch.where(slot < 0, self._total, slot)[..., None]

    def at_anchor(self, values: Tensor) -> Tensor:
        """Values [B, N, F] of every slot's anchor, [B, M, F]; 0 without one."""
        taken = values.gather(1, self._anchor[..., None].expand(-1, -1, values.shape[-1]))
        return torch.where(self._has_anchor, taken, torch.zeros((), dtype=values.dtype, device=values.device))

    def total(self, values: Tensor) -> Tensor:
        """Sum of the values [B, N, F] of every slot's tokens, [B, M, F]."""
        out = torch.cat([self.at_anchor(values), values.new_zeros(values.shape[0], 1, values.shape[2])], dim=1)
        return out.scatter_add_(1, self._slot.expand_as(values), values.masked_fill(self._is_anchor, 0.0))[:, :-1]

    def largest(self, values: Tensor) -> Tensor:
        """Maximum of the values [B, N, F] of every slot's tokens, [B, M, F]; 0 in empty slots."""
        out = values.new_full((values.shape[0], self._total + 1, values.shape[2]), float("-inf"))
        out = out.scatter_reduce_(1, self._slot.expand_as(values), values, "amax")[:, :-1]
        used = torch.zeros(out.shape[0], self._total + 1, 1, dtype=torch.int32, device=out.device)
        used.scatter_(1, self._slot, 1)
        return out.masked_fill(used[:, :-1] == 0, 0.0)
