"""The parts that a method adds to a model: modules with weights, under the names that its spec says."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import CheckpointError, UnsupportedModel
from tmdeploy.methods.spec import CustomSignal
from tmdeploy.models.checkpoint import LoadedCheckpoint, misfit
from tmdeploy.patching.reduction import KEY, Reduction
from tmdeploy.patching.signals import Compute


@dataclass(frozen=True)
class Sizes:
    """What a method's part is made for.

    Attributes:
        width: Width of a token.
        heads: Attention heads.
        num_prefix: Prefix tokens.
        options: The method's options, by name.
    """

    width: int
    heads: int
    num_prefix: int
    options: Mapping[str, str | int | float | bool]


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """What stands under the names of the parts that a patch added, by those names; empty for a module without one."""
    state = module.__dict__.get(KEY)
    names = state.parts if isinstance(state, Reduction) else ()
    return {name: part for name in names if (part := _part(module, name)) is not None}


def make_signals(
    module: nn.Module, recipe: Recipe, num_prefix: int, earlier: Mapping[str, nn.Module]
) -> tuple[dict[int, dict[CustomSignal, Compute]], dict[str, nn.Module]]:
    """What computes a method's own signals.

    A part that the module has already, from an earlier patch or its own, is taken over with its weights.

    Args:
        module: Has the blocks; nothing is added to it yet.
        recipe: Method and blocks.
        num_prefix: Prefix tokens.
        earlier: Parts of an earlier patch, which is undone.

    Returns:
        By block, what computes each signal; by name in the model, those of them that have weights.

    Raises:
        UnsupportedModel: What the method names is not there or no module, or the module has another part of that name.
    """
    spec = recipe.spec
    compute: dict[int, dict[CustomSignal, Compute]] = {}
    parts: dict[str, nn.Module] = {}
    for step, block in enumerate(recipe.layers):
        compute[block] = {}
        for signal in spec.custom_signals:
            named = _named(signal, recipe.method)
            if signal.weights is None:
                compute[block][signal] = named
                continue
            attn: Any = module.get_submodule(f"blocks.{block}.attn")
            made = named(Sizes(attn.qkv.weight.shape[1], attn.num_heads, num_prefix, spec.options))
            if not isinstance(made, nn.Module):
                raise UnsupportedModel(
                    f"{signal.compute} of method '{recipe.method}' makes a {type(made).__name__}",
                    remedy="Let it return an nn.Module",
                )
            name = signal.name_of(step, block)
            parts[name] = _with_weights_of(earlier.get(name) or _part(module, name), made, name)
            compute[block][signal] = parts[name]
    like = next(module.parameters())
    for part in parts.values():
        part.to(like.device).train(module.training)
    return compute, parts


def load_parts(state: Reduction, loaded: LoadedCheckpoint) -> None:
    """Give the method's parts the weights that a checkpoint has for them.

    Raises:
        CheckpointError: It has not all of them, or in other shapes, or of more steps than there are.
    """
    remedy = "Name the method, its options and the blocks that it was trained with: --method, -O, --layers"
    for name, part in state.parts.items():
        given = {
            key.removeprefix(f"{name}."): weight for key, weight in loaded.parts.items() if key.startswith(f"{name}.")
        }
        problem = misfit(_shapes(part.state_dict()), _shapes(given))
        if problem is not None:
            raise CheckpointError(
                f"the weights do not fit the part {name} of method '{state.recipe.method}': {problem}",
                path=loaded.path,
                remedy=remedy,
            )
        part.load_state_dict(given)
    counted = any("{step}" in str(signal.weights) for signal in state.spec.custom_signals)  # else each has its block
    names, steps = tuple(f"{name}." for name in state.parts), len(state.recipe.layers)
    beyond = [key for key in loaded.parts if counted and state.spec.owns(key) and not key.startswith(names)]
    if beyond:
        raise CheckpointError(
            f"has weights of method '{state.recipe.method}' for more steps than {steps} ({beyond[0]})",
            path=loaded.path,
            remedy=remedy,
        )


def halve(module: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    """Convert to fp16 all but a method's own parts: planners decide in fp32 whatever the model's precision."""
    module.half()
    for part in parts.values():
        part.float()


def _named(signal: CustomSignal, method: str) -> Any:
    """The function or class that a signal names."""
    module, _, name = signal.compute.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnsupportedModel(
            f"method '{method}' computes its signal by {signal.compute}, which cannot be imported ({error})",
            remedy="Give the package.module:name of a function, or of an nn.Module",
        ) from error
    return found


def _part(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _with_weights_of(theirs: nn.Module | None, ours: nn.Module, name: str) -> nn.Module:
    if theirs is None:
        return ours
    problem = misfit(_shapes(ours.state_dict()), _shapes(theirs.state_dict()))
    if problem is not None:
        raise UnsupportedModel(
            f"the module has a part {name}, whose weights do not fit those of the method: {problem}",
            remedy="Call tmdeploy.patching.unpatch on it, or rename that part",
        )
    if type(theirs) is type(ours):
        return theirs
    ours.load_state_dict(theirs.state_dict())
    return ours


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}
