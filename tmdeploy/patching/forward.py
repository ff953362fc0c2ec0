"""What a patched module runs: blocks with a reduction step between attention and MLP, and pooling that knows sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tmdeploy.errors import UnsupportedModel
from tmdeploy.methods.spec import Match, Select
from tmdeploy.patching.attention import attend
from tmdeploy.patching.reduction import KEY, Reduction
from tmdeploy.patching.signals import Attention, Signals, shared_signals

Placement = Literal["pre", "res_post"]


@dataclass(frozen=True)
class Place:
    """Which block this is: its number, and where it normalises (as `models.arch.VitConfig.norm_placement`)."""

    state: Reduction
    number: int
    placement: Placement


def reducing_forward(self: nn.Module, x: Tensor, *args: object, **kwargs: object) -> Tensor:
    """Forward of a timm-style block with a reduction step between attention and MLP; x [B, N, C] -> [B, M, C].

    Raises:
        UnsupportedModel: The model hands the block more than its tokens, such as an attention mask.
    """
    place: Place = self.__dict__[KEY]
    state, number = place.state, place.number
    given = given_besides(args, kwargs)
    if given:
        raise UnsupportedModel(
            f"blocks.{number} ({type(self).__name__}) is given {', '.join(given)}, "
            "which a block that reduces its tokens cannot use"
        )
    if number == 0:
        state.begin()
    has_step = number in state.amounts
    return run_block(
        self,
        x,
        place.placement,
        size=state.size if state.spec.prop_attn else None,
        planner=state.spec.planner if has_step else None,
        num_prefix=state.num_prefix,
        reduce=functools.partial(state.step, number) if has_step else None,
    )


def run_block(
    block: nn.Module,
    x: Tensor,
    placement: Placement,
    *,
    size: Tensor | None = None,
    planner: Match | Select | None = None,
    num_prefix: int = 0,
    reduce: Callable[[Tensor, Signals, Attention], Tensor] | None = None,
) -> Tensor:
    """A block as timm writes it: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))), with drop paths.

    Args:
        block: Has norm1, attn, norm2, mlp, and optionally ls1, ls2, drop_path1, drop_path2 or drop_path.
        x: [B, N, C].
        placement: `res_post` normalises the branches' results: x + norm1(attn(x)), then x + norm2(mlp(x)).
        size: See `attend`.
        planner: The planner whose signals to compute; None computes none.
        num_prefix: See `attend`.
        reduce: Applied between the two: tokens [B, N, C], signals and attention to tokens [B, M, C].
    """
    before = placement == "pre"
    attn, norm1, mlp, norm2 = (block.get_submodule(name) for name in ("attn", "norm1", "mlp", "norm2"))
    attended, attention = attend(attn, norm1(x) if before else x, size=size, num_prefix=num_prefix)
    signals = shared_signals(planner, attention) if planner is not None else Signals()
    x = x + _branch(block, ("ls1", "drop_path1"), attended if before else norm1(attended))
    if reduce is not None:
        x = reduce(x, signals, attention)
    hidden = mlp(norm2(x)) if before else norm2(mlp(x))
    return x + _branch(block, ("ls2", "drop_path2"), hidden)


def given_besides(args: Sequence[object], kwargs: Mapping[str, object]) -> list[str]:
    """What a block or attention is called with beside its tokens, by name; None and False are nothing."""
    positional = [f"a {type(value).__name__}" for value in args if value is not None and value is not False]
    return positional + [name for name, value in kwargs.items() if value is not None and value is not False]


def sized_pool(state: Reduction, *, start: int, default: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A `pool(x, pool_type=None)` as timm's, whose means weigh tokens by size (ToMe's MAE patch).

    Args:
        state: Holds the sizes.
        start: First token that is pooled.
        default: The module's own `global_pool`.
        original: The module's own pool, for every other kind of pooling.
    """

    def pool(self: nn.Module, x: Tensor, pool_type: str | None = None) -> Tensor:
        kind = default if pool_type is None else pool_type
        if state.size is None or kind not in {"avg", "avgmax"}:
            return original(x) if pool_type is None else original(x, pool_type)
        weight = state.size[:, start:, None].to(x.dtype)
        tokens = x[:, start:]
        mean = (tokens * weight).sum(dim=1) / weight.sum(dim=1)
        return mean if kind == "avg" else 0.5 * (tokens.amax(dim=1) + mean)

    return pool


def _branch(block: nn.Module, names: tuple[str, str], x: Tensor) -> Tensor:
    scale, drop = names
    for name in (scale, drop if hasattr(block, drop) else "drop_path"):
        child = getattr(block, name, None)
        if isinstance(child, nn.Module):
            x = child(x)
    return x
