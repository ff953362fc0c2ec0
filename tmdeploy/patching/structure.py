"""The structure of a module that `patch` needs; what a patched block would leave out is refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import nn

from tmdeploy.errors import UnsupportedModel
from tmdeploy.methods.spec import MethodSpec
from tmdeploy.patching.forward import Place, Placement
from tmdeploy.patching.reduction import KEY, Reduction

_BLOCK_PARTS = {"norm1", "attn", "norm2", "mlp", "ls1", "ls2", "drop_path", "drop_path1", "drop_path2"}
_ATTENTION_PARTS = {"qkv", "proj", "q_norm", "k_norm", "norm", "gate", "attn_drop", "proj_drop"}
_ELSE = "call the ops directly where your block reduces its tokens (docs/guide/own-module.md)"


def check_module(module: nn.Module) -> None:
    """Refuse a module whose forward does not run its blocks' Python code, or runs it twice.

    Raises:
        UnsupportedModel: It is compiled, scripted, or checkpoints gradients.
    """
    kind = type(module).__name__
    for name, part in module.named_modules():
        compiled = getattr(part, "_compiled_call_impl", None) is not None or hasattr(part, "_orig_mod")
        if compiled:
            raise UnsupportedModel(
                f"{kind}{f': {name}' if name else ''} is compiled by torch.compile, and would go on with the old code",
                remedy="Patch the module first, then compile it (module._orig_mod is the module that was compiled)",
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedModel(f"{kind} is TorchScript, whose code cannot be replaced", remedy="Give the nn.Module")
    if getattr(module, "grad_checkpointing", False):
        raise UnsupportedModel(
            f"{kind} checkpoints gradients: the backward pass would reduce the tokens a second time",
            remedy="Turn it off: module.set_grad_checkpointing(False)",
        )


def find_blocks(module: nn.Module, spec: MethodSpec | None = None) -> list[nn.Module]:
    """The blocks, each with the structure that a patched block runs.

    Args:
        module: Patched or not.
        spec: The method that the module will have, whose own parts may be there.

    Raises:
        UnsupportedModel: There are none, or one has parts that would be left out, or lacks one; it is named.
    """
    blocks = getattr(module, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or len(blocks) == 0:
        raise UnsupportedModel(
            f"{type(module).__name__} has no `blocks`",
            remedy=f"patch() needs a timm-style ViT; for another layout {_ELSE}",
        )
    state = module.__dict__.get(KEY)
    specs = [one for one in (spec, state.spec if isinstance(state, Reduction) else None) if one is not None]

    def owned(weight: str) -> bool:
        return any(one.owns(weight) for one in specs)

    found: list[nn.Module] = list(blocks)
    for number, block in enumerate(found):
        where = f"blocks.{number} ({type(block).__name__})"
        _require(block, ("norm1", "attn", "norm2", "mlp"), where)
        first = next(other for other in range(number + 1) if found[other] is block)
        if first != number:
            raise UnsupportedModel(
                f"{where} is blocks.{first} again; a step belongs to one block", remedy="Give each block a module"
            )
        place = block.__dict__.get(KEY)
        if isinstance(place, Place) and module.__dict__.get(KEY) is not place.state:
            raise UnsupportedModel(
                f"{where} is patched as a part of another module", remedy="Call tmdeploy.patching.unpatch on that one"
            )
        _check_parts(block, _BLOCK_PARTS, where, owned)
        _check_call(block, where)
        check_attention(block.get_submodule("attn"), f"blocks.{number}.attn", owned)
    return found


def check_attention(attn: nn.Module, name: str, owned: Callable[[str], bool] = lambda _: False) -> None:
    """Refuse an attention module that `attend` cannot run; `owned` says which weights are a method's.

    Raises:
        UnsupportedModel: It lacks a fused `qkv`, `proj` or `num_heads`, or has parts, or hooks, that would be left out.
    """
    where = f"{name} ({type(attn).__name__})"
    _require(attn, ("qkv", "proj", "num_heads"), where)
    _check_parts(attn, _ATTENTION_PARTS, where, owned)
    if attn._forward_hooks or attn._forward_pre_hooks:
        raise UnsupportedModel(
            f"{where} has forward hooks, which would never be called again",
            remedy="Remove them, or put them on its qkv and proj",
        )


def placement_of(block: nn.Module) -> Placement | None:
    """Where a block normalises, if it says so: ours by an attribute, timm's by its class."""
    said = getattr(block, "norm_placement", None)
    if said in {"pre", "res_post"}:
        placement: Placement = said
        return placement
    names = {base.__name__ for base in type(block).__mro__ if base.__module__.startswith("timm.")}
    if "ResPostBlock" in names:
        return "res_post"
    return "pre" if "Block" in names else None


def prefix_of(module: nn.Module) -> int:
    """Prefix tokens: `num_prefix_tokens`, else the class, distillation and register tokens it has."""
    prefix = getattr(module, "num_prefix_tokens", None)
    if isinstance(prefix, int):
        return prefix
    tokens = (getattr(module, name, None) for name in ("cls_token", "dist_token", "reg_token"))
    return sum(token.shape[-2] for token in tokens if isinstance(token, torch.Tensor))


def patches_of(module: nn.Module) -> int | None:
    """`patch_embed.num_patches`."""
    patches = getattr(getattr(module, "patch_embed", None), "num_patches", None)
    return patches if isinstance(patches, int) else None


def image_shape(module: nn.Module) -> tuple[int, int, int] | None:
    """Channels, height and width of the input, where the module says them: ours and timm's do."""
    embed, config = getattr(module, "patch_embed", None), getattr(module, "config", None)
    card = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    published = card.get("input_size") if isinstance(card, dict) else None
    sides = next(
        (
            size
            for owner, name in (
                (embed, "img_size"),
                (config, "image_size"),
                (module, "img_size"),
                (module, "image_size"),
            )
            if (size := getattr(owner, name, None))
        ),
        published[1:] if published else None,
    )
    if isinstance(sides, int):
        sides = (sides, sides)
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        return None
    projection = getattr(embed, "proj", None)
    channels = projection.in_channels if isinstance(projection, nn.Conv2d) else getattr(module, "in_chans", 3)
    return int(channels), int(sides[0]), int(sides[1])


def _require(part: nn.Module, names: tuple[str, ...], where: str) -> None:
    missing = [name for name in names if getattr(part, name, None) is None]
    if missing:
        raise UnsupportedModel(
            f"{where} has no {', '.join(missing)}",
            remedy=f"patch() needs timm-style blocks; for another layout {_ELSE}",
        )


def _check_parts(part: nn.Module, known: set[str], where: str, owned: Callable[[str], bool]) -> None:
    """What a patched block would not run may hold nothing that was trained."""
    path = where.partition(" ")[0]
    own = [name for name, _ in part.named_parameters(recurse=False)]
    children = [
        name
        for name, child in part.named_children()
        if name not in known and not all(owned(f"{path}.{name}.{weight}") for weight, _ in child.named_parameters())
    ]
    if own or children:
        raise UnsupportedModel(
            f"{where} has {', '.join([*own, *children][:4])}, which a patched block would leave out", remedy=_refusal()
        )


def _check_call(block: nn.Module, where: str) -> None:
    """A block that cannot run on its tokens alone would fail inside the model."""
    try:
        parameters = list(inspect.signature(type(block).forward).parameters.values())[2:]
    except (TypeError, ValueError):
        return
    needed = [
        entry.name
        for entry in parameters
        if entry.default is inspect.Parameter.empty
        and entry.kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    ]
    if needed:
        raise UnsupportedModel(f"{where} takes {', '.join(needed)} besides its tokens", remedy=_refusal())


def _refusal() -> str:
    return f"It stays as it was; for such a model {_ELSE}"
