"""The architecture of a checkpoint, from the names and shapes of its weights alone. No torch in here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tmdeploy.errors import CheckpointError, UsageError
from tmdeploy.models.arch import Architecture, VitConfig, architecture, architectures

Shapes = Mapping[str, tuple[int, ...]]

_READABLE = "Save the state_dict of a timm-style ViT or DeiT; other layouts have to be converted to its names first"

# What else people have: a name that gives the layout away, and what to call it.
_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$", "a ViT with Hugging Face transformers' names"),
    (r"(^|\.)encoder\.layers\.encoder_layer_\d+\.", "a ViT with torchvision's names"),
    (r"(^|\.)layers\.\d+\.blocks\.\d+\.", "a Swin or another hierarchical transformer"),
    (r"(^|\.)(visual\.conv1|class_embedding)", "a CLIP model with OpenAI's names"),
    (r"(^|\.)layer1\.0\.conv1\.weight$", "a ResNet"),
    (r"(^|\.)(stages|features)\.\d+\.", "a convolutional network"),
)
# Parts of ViTs that change what a block computes and that VitConfig has no field for.
_UNSUPPORTED: tuple[tuple[str, str], ...] = (
    (r"^blocks\.0\.attn\.[qk]_norm\.", "normalised queries and keys (attn.q_norm)"),
    (r"^(blocks\.0\.attn\.)?(rel_pos|relative_position)", "relative position embeddings"),
    (r"^blocks\.0\.mlp\.(w12|w3|fc1_g|fc1_x)\.", "a gated MLP (SwiGLU)"),
    (r"^blocks\.0\.attn\.(q|k|v|q_proj|k_proj|v_proj)\.weight$", "separate q, k and v projections"),
    (r"^attn_pool\.", "attention pooling (attn_pool)"),
    (r"^patch_embed\.(backbone|conv)", "a convolutional stem"),
)
# What the shapes show and a fine-tuned copy of an architecture shares with it; a multi-scale stem may be added to any.
_STRUCTURE = (
    "patch_size",
    "width",
    "depth",
    "mlp_width",
    "in_channels",
    "class_token",
    "distilled",
    "registers",
    "qkv_bias",
    "patch_bias",
    "layer_scale",
    "pre_norm",
)


@dataclass(frozen=True)
class Inference:
    """A config, and what was assumed to get it.

    Attributes:
        config: The architecture, for the image size that is wanted.
        weights_grid: Patches down and across that the position embedding was trained for.
        notes: Assumptions that the shapes cannot confirm, one sentence each.
    """

    config: VitConfig
    weights_grid: tuple[int, int]
    notes: tuple[str, ...] = ()


def infer_config(
    shapes: Shapes, *, arch: str | None = None, num_heads: int | None = None, image_size: int | None = None
) -> VitConfig:
    """The config alone; see `infer`."""
    return infer(shapes, arch=arch, num_heads=num_heads, image_size=image_size).config


def infer(
    shapes: Shapes, *, arch: str | None = None, num_heads: int | None = None, image_size: int | None = None
) -> Inference:
    """Work the architecture out.

    Attention heads leave no trace in the shapes: they are the named or recognised architecture's, else width / 64.
    The image size is that of the weights' position embedding, whatever `arch` says, unless `image_size` is given.

    Args:
        shapes: Shape of every weight, by timm's names.
        arch: Registered architecture that it is said to be; settles what shapes cannot show.
        num_heads: Attention heads.
        image_size: Side of the input that is wanted, pixels.

    Raises:
        CheckpointError: It is no ViT of this family, or not the one that `arch` names.
        UsageError: Unknown `arch`, or impossible `num_heads` or `image_size`.
    """
    seen = _seen(shapes)
    side = _add_pos_embed(shapes, seen)
    notes: list[str] = []
    if arch is not None:
        like: VitConfig | None = architecture(arch).config
        _check_is(architecture(arch).config, seen)
    else:
        like = _recognise(seen, side * seen["patch_size"], notes)
    if like is None and not seen["pos_embed_prefix"]:
        # h * w + 1 of an oblong grid can be a square too
        notes.append(f"the position embedding is read as that of {side} x {side} patches, without prefix tokens")
    fields = {**seen, **_unseen(seen, like)}
    fields["heads"] = num_heads if num_heads is not None else _heads(seen["width"], like, notes)
    trained = _config({**fields, "image_size": (side * seen["patch_size"],) * 2})
    return Inference(with_image_size(trained, image_size), trained.grid, tuple(notes))


def with_image_size(config: VitConfig, image_size: int | None) -> VitConfig:
    """The config for square images of another side, pixels; None leaves it.

    Raises:
        UsageError: Not a multiple of the patch sizes.
    """
    if image_size is None:
        return config
    step = math.lcm(config.patch_size, *config.scales)
    if image_size < 1 or image_size % step:
        below = max(step, image_size // step * step)
        raise UsageError(
            f"image size {image_size} is not a multiple of the patch size {step}",
            remedy=f"Use --image-size {below} or {below + step}",
        )
    return config.replace(image_size=(image_size, image_size))


def _seen(shapes: Shapes) -> dict[str, Any]:
    """Fields that names and shapes show."""
    _refuse_foreign(shapes)
    width, channels, patch, across = _shape(shapes, "patch_embed.proj.weight", 4)
    if patch != across:
        raise CheckpointError(f"its patches are {patch} x {across} pixels", remedy="Only square patches are supported")
    scales: list[int] = []
    while f"ms_embed.{len(scales)}.proj.weight" in shapes:
        scales.append(_shape(shapes, f"ms_embed.{len(scales)}.proj.weight", 4)[-1])
    return {
        "patch_size": patch,
        "width": width,
        "depth": _depth(shapes),
        "mlp_width": _shape(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        "num_classes": _shape(shapes, "head.weight", 2)[0] if "head.weight" in shapes else 0,
        "in_channels": channels,
        "class_token": "cls_token" in shapes,
        "distilled": "dist_token" in shapes,
        "registers": _shape(shapes, "reg_token", 3)[1] if "reg_token" in shapes else 0,
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "layer_scale": "blocks.0.ls1.gamma" in shapes,
        "pre_norm": "norm_pre.weight" in shapes,
        "fc_norm": "fc_norm.weight" in shapes,
        "scales": tuple(scales),
        "fusion": "concat" if "ms_fuse.weight" in shapes else "sum",
    }


def _refuse_foreign(shapes: Shapes) -> None:
    if "patch_embed.proj.weight" in shapes and any(name.startswith("blocks.0.") for name in shapes):
        for pattern, what in _UNSUPPORTED:
            if any(re.search(pattern, name) for name in shapes):
                raise CheckpointError(
                    f"the model has {what}, which tmdeploy's ViT lacks",
                    remedy="Patch your own module with tmdeploy.patch() instead (docs/methods.md)",
                )
        return
    for pattern, what in _FOREIGN:
        if any(re.search(pattern, name) for name in shapes):
            raise CheckpointError(f"this looks like {what}, not a timm-style ViT", remedy=_READABLE)
    some = ", ".join(sorted(shapes)[:3])
    raise CheckpointError(
        f"no ViT: 'patch_embed.proj.weight' and 'blocks.0.*' are not among its {len(shapes)} tensors ({some}, ...)",
        remedy=_READABLE,
    )


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"the weights have no '{name}'", remedy=_READABLE)
    shape = tuple(shapes[name])
    if len(shape) != rank or min(shape) < 1:
        raise CheckpointError(f"'{name}' has shape {list(shape)}, not {rank} dimensions", remedy=_READABLE)
    return shape


def _depth(shapes: Shapes) -> int:
    numbers = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d{1,6})\.", name))}
    for number in range(len(numbers)):
        if number not in numbers:
            raise CheckpointError(
                f"the weights have no block {number}, but one numbered {max(numbers)}",
                remedy="The file is incomplete: get it again",
            )
    return len(numbers)


def _add_pos_embed(shapes: Shapes, seen: dict[str, Any]) -> int:
    """Add `pos_embed_prefix` to what is seen; return the side of the patch grid."""
    length = _shape(shapes, "pos_embed", 3)[1]
    prefix = int(seen["class_token"]) + int(seen["distilled"]) + seen["registers"]
    # With both possible, models with registers leave the prefix out (timm's no_embed_class), others cover it.
    for covers in (False, True) if seen["registers"] else (True, False):
        patches = length - prefix if covers else length
        side = math.isqrt(max(patches, 0))
        if side > 0 and side * side == patches:
            # without prefix tokens, covering them or not is the same thing
            seen["pos_embed_prefix"] = covers or prefix == 0
            return side
    raise CheckpointError(
        f"its position embedding has {length} entries: no square grid, with or without {prefix} prefix tokens",
        remedy="A model for non-square images needs tmdeploy's own .pt, which stores the image size "
        "(tmdeploy.models.checkpoint.save_checkpoint)",
    )


def _check_is(named: VitConfig, seen: Mapping[str, Any]) -> None:
    differing = [
        f"{field} is {seen[field]}, not {getattr(named, field)}"
        for field in _STRUCTURE
        if seen[field] != getattr(named, field)
    ]
    if differing:
        fitting = [entry.config.name for entry in _same_structure(seen)]
        remedy = f"Pass --arch {fitting[0]}, or leave --arch out" if fitting else "Leave --arch out to infer it"
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(f"the weights are no {named.name}: {'; '.join(differing[:3])}{more}", remedy=remedy)


def _same_structure(seen: Mapping[str, Any]) -> list[Architecture]:
    fields = (*_STRUCTURE, "pos_embed_prefix", "fc_norm")
    return [entry for entry in architectures() if all(getattr(entry.config, field) == seen[field] for field in fields)]


def _recognise(seen: Mapping[str, Any], side: int, notes: list[str]) -> VitConfig | None:
    fitting = _same_structure(seen)
    # of those for this image size, if there are any
    fitting = [entry for entry in fitting if entry.config.image_size == (side, side)] or fitting
    if not fitting:
        return None
    chosen = fitting[0]
    others = [
        entry.config.name
        for entry in fitting[1:]
        if (entry.preprocessing.mean, entry.preprocessing.std) != (chosen.preprocessing.mean, chosen.preprocessing.std)
    ]
    if others:
        notes.append(
            f"read as {chosen.config.name}; {others[0]} has the same shapes but other input statistics: "
            f"pass --arch {others[0]} if it is that"
        )
    return chosen.config


def _unseen(seen: Mapping[str, Any], like: VitConfig | None) -> dict[str, Any]:
    """Fields that neither names nor shapes show, heads aside."""
    mean = seen["fc_norm"] or not seen["class_token"]
    if like is None:
        # CLIP's towers, the ViTs with a norm before block 0, were trained with torch's own epsilon
        return {"name": "vit", "pool": "avg" if mean else "token", "norm_eps": 1e-5 if seen["pre_norm"] else 1e-6}
    pool = "avg" if mean else "token" if like.fc_norm else like.pool
    return {"name": like.name, "pool": pool, "norm_eps": like.norm_eps, "resample": like.resample}


def _heads(width: int, like: VitConfig | None, notes: list[str]) -> int:
    if like is not None:
        return like.heads
    if width % 64:
        raise CheckpointError(
            f"the number of attention heads cannot be seen in the weights, nor guessed for width {width}",
            remedy="Give --num-heads",
        )
    notes.append(f"attention heads assumed to be width / 64 = {width // 64}: pass --num-heads if they are not")
    return width // 64


def _config(fields: Mapping[str, Any]) -> VitConfig:
    width, heads = fields["width"], fields["heads"]
    if heads < 1 or width % heads:
        raise UsageError(f"{heads} attention heads do not divide the width {width}", remedy="Give another --num-heads")
    try:
        return VitConfig().replace(**fields)
    except UsageError as error:
        raise CheckpointError(f"its weights make no ViT that tmdeploy can build ({error.message})") from None
