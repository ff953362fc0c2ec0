"""`patch(module, method)`: make a timm-style ViT reduce its tokens, in place."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.methods.spec import MethodSpec, Select
from tmdeploy.patching.attention import attend, check_attention
from tmdeploy.patching.step import Counts, StepTensors, reduction_step
from tmdeploy.recipe import Recipe, make_recipe
from tmdeploy.schedule import kept_count, merged_count

_KEY = "_tmdeploy_reduction"
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Reduction:
    """What a patched module remembers during a forward pass, and what it was patched with.

    Attributes:
        recipe: Method and schedule.
        spec: The method's spec.
        num_prefix: Prefix tokens.
        has_class_token: Whether the first of them is a class token.
        deterministic: Planners accumulate in float64.
        amounts: r or keep by block; assign another mapping to change it (ToMe's `model.r = 8`).
        counts: Instead of amounts: tensors whose lengths are the counts, by block. The exporter's way in.
        record: Collect `steps`.
        steps: Steps of the last forward pass, in block order, if `record`.
        size: float32 [B, N], sizes after the last step of the last forward pass; None without any.
    """

    def __init__(self, recipe: Recipe, *, num_prefix: int, has_class_token: bool, deterministic: bool = True) -> None:
        self.recipe = recipe
        self.spec: MethodSpec = recipe.spec
        self.num_prefix = num_prefix
        self.has_class_token = has_class_token
        self.deterministic = deterministic
        self.amounts: Mapping[int, int] = dict(zip(recipe.layers, recipe.amounts, strict=True))
        self.counts: Mapping[int, Counts] | None = None
        self.record = False
        self.steps: list[StepTensors] = []
        self.size: Tensor | None = None

    def begin(self) -> None:
        """Forget the last forward pass."""
        self.size = None
        self.steps = []

    def set_schedule(self, amounts: Sequence[int]) -> None:
        """Replace r or keep of every step.

        Raises:
            UsageError: Not one amount a step.
        """
        layers = self.recipe.layers
        if len(amounts) != len(layers):
            raise UsageError(f"{len(amounts)} amounts for {len(layers)} reduction steps")
        self.amounts = dict(zip(layers, amounts, strict=True))

    def step(self, block: int, x: Tensor, attention_signals: Any) -> Tensor:
        """Apply the reduction step of `block` to x [B, N, D]."""
        counts = self.counts[block] if self.counts is not None else self._counts(x, self.amounts[block])
        result = reduction_step(
            self.spec,
            block,
            x,
            attention_signals,
            self.size,
            counts,
            num_prefix=self.num_prefix,
            has_class_token=self.has_class_token,
            deterministic=self.deterministic,
        )
        self.size = result.size_out
        if self.record:
            self.steps.append(result)
        return result.x_out

    def _counts(self, x: Tensor, amount: int) -> Counts:
        tokens, prefix = x.shape[1], self.num_prefix
        if not isinstance(self.spec.planner, Select):
            return Counts(torch.arange(merged_count(tokens, prefix, amount), device=x.device))
        stay = kept_count(tokens, prefix, amount)
        if not self.spec.fuses:
            return Counts(torch.arange(stay, device=x.device))
        return Counts(torch.arange(stay + (stay < tokens), device=x.device), torch.arange(stay, device=x.device))


def patch(
    module: ModuleT,
    method: str | Recipe,
    *,
    r: str | int | Sequence[int] | None = None,
    keep: str | float | Sequence[float] | None = None,
    layers: Sequence[int] | None = None,
    options: Mapping[str, str | int | float | bool] | None = None,
    deterministic: bool = True,
) -> ModuleT:
    """Make a timm-style ViT reduce its tokens.

    The blocks' `forward` is replaced on the instances: parameters, buffers and their names stay as they are, so
    checkpoints load and save as before. Patching again replaces the earlier patch.

        model = tmdeploy.patch(timm.create_model("deit_small_patch16_224"), "tome", r=13)

    Args:
        module: Has `blocks` (each with norm1, attn, norm2, mlp), `num_prefix_tokens`, and a forward that runs the
            blocks one after the other.
        method: Registered name, or a whole recipe (then leave the rest out).
        r: As `--r`: 13, "26:0", [8, 8, 4].
        keep: As `--keep`: 0.7, [0.9, 0.8, 0.7], [138, 97, 68].
        layers: Blocks with a reduction step.
        options: Named options of the method.
        deterministic: Planners accumulate in float64.

    Returns:
        The same module.

    Raises:
        UnsupportedModel: The module lacks that structure.
        UsageError: Unknown method or option, or an impossible schedule.
    """
    blocks = _blocks(module)
    prefix = _num_prefix(module)
    if isinstance(method, Recipe):
        recipe = method
    else:
        recipe = make_recipe(
            method,
            depth=len(blocks),
            tokens=_tokens(module, prefix),
            prefix=prefix,
            r=r,
            keep=keep,
            layers=layers,
            options=options,
        )
    has_class_token = getattr(module, "cls_token", None) is not None
    if isinstance(recipe.spec.planner, Select) and not has_class_token:
        raise UnsupportedModel(
            f"method '{recipe.method}' scores tokens by the class token's attention, and the model has no class token",
            remedy="Use a similarity-driven method such as tome",
        )
    unpatch(module)
    state = Reduction(recipe, num_prefix=prefix, has_class_token=has_class_token, deterministic=deterministic)
    object.__setattr__(module, _KEY, state)
    for number, block in enumerate(blocks):
        object.__setattr__(block, _KEY, (state, number))
        block.forward = types.MethodType(_reducing_forward, block)
    _patch_pooling(module, state)
    return module


def unpatch(module: ModuleT) -> ModuleT:
    """Undo `patch`; harmless on a module that was never patched."""
    if _KEY in module.__dict__:
        for name in ("forward_head", "pool"):
            module.__dict__.pop(name, None)
        for block in _blocks(module):
            block.__dict__.pop("forward", None)
            block.__dict__.pop(_KEY, None)
        del module.__dict__[_KEY]
    return module


def reduction_of(module: nn.Module) -> Reduction:
    """The state of a patched module.

    Raises:
        UnsupportedModel: It was never patched.
    """
    state = module.__dict__.get(_KEY)
    if not isinstance(state, Reduction):
        raise UnsupportedModel("the module is not patched", remedy="Call tmdeploy.patch(module, method) first")
    return state


def _reducing_forward(self: nn.Module, x: Tensor) -> Tensor:
    """Forward of a timm-style block with a reduction step between attention and MLP."""
    state, number = self.__dict__[_KEY]
    if number == 0:
        state.begin()
    has_step = number in state.amounts
    size = state.size if state.spec.prop_attn else None
    attended, signals = attend(
        self.get_submodule("attn"),
        self.get_submodule("norm1")(x),
        size=size,
        planner=state.spec.planner if has_step else None,
    )
    x = x + _branch(self, ("ls1", "drop_path1"), attended)
    if has_step:
        x = state.step(number, x, signals)
    hidden = self.get_submodule("mlp")(self.get_submodule("norm2")(x))
    return x + _branch(self, ("ls2", "drop_path2"), hidden)


def _branch(block: nn.Module, names: tuple[str, str], x: Tensor) -> Tensor:
    scale, drop = names
    for name in (scale, drop if hasattr(block, drop) else "drop_path"):
        child = getattr(block, name, None)
        if isinstance(child, nn.Module):
            x = child(x)
    return x


def _patch_pooling(module: nn.Module, state: Reduction) -> None:
    """Mean pooling must weigh merged tokens by their size (ToMe's MAE patch)."""
    if not state.spec.tracks_size or getattr(module, "global_pool", "token") != "avg":
        return
    if not hasattr(module, "pool"):
        raise UnsupportedModel(
            f"{type(module).__name__} pools the mean of its tokens in a way patch() cannot reach",
            remedy="Give the module a method pool(x), as timm's VisionTransformer has",
        )

    def pool(self: nn.Module, x: Tensor, pool_type: str | None = None) -> Tensor:
        tokens = x[:, state.num_prefix :]
        if state.size is None:
            return tokens.mean(dim=1)
        weight = state.size[:, state.num_prefix :, None].to(x.dtype)
        return (tokens * weight).sum(dim=1) / weight.sum(dim=1)

    object.__setattr__(module, "pool", types.MethodType(pool, module))


def _blocks(module: nn.Module) -> list[nn.Module]:
    blocks = getattr(module, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or len(blocks) == 0:
        raise UnsupportedModel(
            f"{type(module).__name__} has no `blocks`",
            remedy="patch() needs a timm-style ViT; for another layout call the ops directly (docs/methods.md)",
        )
    found = list(blocks)
    for number, block in enumerate(found):
        missing = [name for name in ("norm1", "attn", "norm2", "mlp") if not hasattr(block, name)]
        if missing:
            raise UnsupportedModel(f"blocks.{number} ({type(block).__name__}) has no {', '.join(missing)}")
        check_attention(block.get_submodule("attn"), f"blocks.{number}.attn")
    return found


def _num_prefix(module: nn.Module) -> int:
    prefix = getattr(module, "num_prefix_tokens", None)
    if isinstance(prefix, int):
        return prefix
    return sum(getattr(module, name, None) is not None for name in ("cls_token", "dist_token"))


def _tokens(module: nn.Module, prefix: int) -> int:
    embed = getattr(module, "patch_embed", None)
    patches = getattr(embed, "num_patches", None)
    if isinstance(patches, int):
        return prefix + patches
    raise UnsupportedModel(
        f"{type(module).__name__} does not say how many patches it has",
        remedy="Give patch_embed an integer num_patches, or pass a Recipe",
    )
