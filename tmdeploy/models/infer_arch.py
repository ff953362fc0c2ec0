"""The architecture of a checkpoint, from the names and shapes of its weights alone. No torch in here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tmdeploy.card.arch import (
    MAX_DEPTH,
    Architecture,
    VitConfig,
    architecture,
    default_preprocessing,
    known_architectures,
)
from tmdeploy.card.card import Assumption
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import CheckpointError, UsageError
from tmdeploy.models.assume import COMPUTE_KEYS, PREPROCESSING_KEYS, Assumed, assumption, assumption_notes, text
from tmdeploy.models.families import READABLE, Shapes, refuse_foreign

# What shapes show and fine-tuning keeps; a multi-scale stem may be added to any architecture.
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
    """A config, and the assumptions behind it.

    Attributes:
        config: The architecture, for the requested image size.
        preprocessing: How images become its input.
        weights_grid: Patches down and across that the position embedding was trained for.
        assumptions: What names and shapes leave open.
        notes: Sentences about them for the user.
    """

    config: VitConfig
    preprocessing: Preprocessing
    weights_grid: tuple[int, int]
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()


def infer_config(
    shapes: Shapes, *, arch: str | None = None, assumed: Assumed | None = None, image_size: int | None = None
) -> VitConfig:
    """The config alone; see `infer`."""
    return infer(shapes, arch=arch, assumed=assumed, image_size=image_size).config


def infer(
    shapes: Shapes,
    *,
    arch: str | None = None,
    assumed: Assumed | None = None,
    image_size: int | None = None,
    official_names: bool = False,
) -> Inference:
    """Infer the architecture.

    What names and shapes leave open (heads, activation, placement of norms, pooling, epsilon, preprocessing) comes from
    the user, else from the named or recognised architecture, else from convention. Where known architectures of the
    same shapes compute different things, the user is asked.
    The image size is that of the weights' position embedding, whatever `arch` says, unless `image_size` is given.

    Args:
        shapes: Shape of every weight, by timm's names.
        arch: Name of the architecture; settles what shapes cannot show.
        assumed: What the user says about the rest.
        image_size: Requested side of the input, pixels.
        official_names: Whether LayerScale had its official names, `gamma_1` and `gamma_2`.

    Raises:
        CheckpointError: It is no ViT of this family, not the one that `arch` names, or ambiguous.
        UsageError: `arch` is unknown, or an assumption or `image_size` is impossible.
    """
    assumed = assumed or Assumed()
    seen = _seen(shapes)
    grid = _add_pos_embed(shapes, seen, assumed.grid)
    size = (grid[0] * seen["patch_size"], grid[1] * seen["patch_size"])
    rivals: list[Architecture] = []
    if arch is not None:
        like: Architecture | None = architecture(arch)
        _check_is(architecture(arch).config, seen)
    else:
        fitting = _fitting(seen, official_names=official_names)
        like = _recognise(fitting, assumed, size)
        rivals = [] if like is None else _rivals(fitting, like, size)
    name = "vit" if like is None else like.config.name
    fields = {**seen, **_unseen(seen, like, assumed), "name": name, "image_size": size}
    config = _config(fields)
    preprocessing = default_preprocessing(config).model_copy(update=assumed.given(PREPROCESSING_KEYS))
    assumptions = _assumptions(config, preprocessing, assumed, like, rivals, said=arch is not None)
    wanted = with_image_size(config, image_size)
    return Inference(
        wanted,
        preprocessing.model_copy(update={"image_size": wanted.image_size}),
        grid,
        assumptions,
        assumption_notes(assumptions),
    )


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


def check_described(config: VitConfig, shapes: Shapes) -> None:
    """Check a file's own description against its weights before relying on it.

    Raises:
        CheckpointError: They disagree.
    """
    seen = _seen(shapes)
    if not seen["scales"]:
        seen.pop("fusion")
    for field, value in seen.items():
        if getattr(config, field) != value:
            raise CheckpointError(
                f"its description says that {field} is {getattr(config, field)}, its weights that it is {value}",
                remedy="Save it again",
            )
    length = _shape(shapes, "pos_embed", 3)[1]
    if length != config.grid[0] * config.grid[1] + (config.num_prefix if config.pos_embed_prefix else 0):
        raise CheckpointError(
            f"its position embedding has {length} entries: none for {config.grid[0]} x {config.grid[1]} patches",
            remedy="Save it again",
        )


def _seen(shapes: Shapes) -> dict[str, Any]:
    """Fields that names and shapes show."""
    refuse_foreign(shapes)
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


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"the weights have no '{name}'", remedy=READABLE)
    shape = tuple(shapes[name])
    if len(shape) != rank or min(shape) < 1:
        raise CheckpointError(f"'{name}' has shape {list(shape)}, not {rank} dimensions", remedy=READABLE)
    return shape


def _depth(shapes: Shapes) -> int:
    numbers = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d{1,6})\.", name))}
    for number in range(len(numbers)):
        if number not in numbers:
            raise CheckpointError(
                f"the weights have no block {number}, but one numbered {max(numbers)}",
                remedy="The file is incomplete: get it again",
            )
    if len(numbers) > MAX_DEPTH:
        raise CheckpointError(f"it has {len(numbers)} blocks: no ViT has more than {MAX_DEPTH}", remedy=READABLE)
    return len(numbers)


def _add_pos_embed(shapes: Shapes, seen: dict[str, Any], said: tuple[int, int] | None) -> tuple[int, int]:
    """Add `pos_embed_prefix` to what is seen; return the patch grid: the stated one, else a square."""
    length = _shape(shapes, "pos_embed", 3)[1]
    prefix = int(seen["class_token"]) + int(seen["distilled"]) + seen["registers"]
    # With both possible, models with registers leave the prefix out (timm's no_embed_class), others cover it.
    for covers in (False, True) if seen["registers"] else (True, False):
        patches = length - prefix if covers else length
        side = math.isqrt(max(patches, 0))
        grid = said or (side, side)
        if side > 0 and grid[0] * grid[1] == patches:
            # without prefix tokens, covering them or not is the same thing
            seen["pos_embed_prefix"] = covers or prefix == 0
            return grid
    what = "no square grid" if said is None else f"no grid of {said[0]} x {said[1]}"
    raise CheckpointError(
        f"its position embedding has {length} entries: {what}, with or without {prefix} prefix tokens",
        remedy="Give the patches down and across of a model for non-square images: --assume grid=HxW",
    )


def _check_is(named: VitConfig, seen: Mapping[str, Any]) -> None:
    differing = [
        f"{field} is {seen[field]}, not {getattr(named, field)}"
        for field in _STRUCTURE
        if seen[field] != getattr(named, field)
    ]
    if differing:
        fitting = [entry.config.name for entry in _fitting(seen) if entry.lacks is None]
        remedy = f"Pass --arch {fitting[0]}, or leave --arch out" if fitting else "Leave --arch out to infer it"
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(f"the weights are no {named.name}: {'; '.join(differing[:3])}{more}", remedy=remedy)


def _fitting(seen: Mapping[str, Any], *, official_names: bool = False) -> list[Architecture]:
    """Known architectures with these names and shapes."""
    fields = (*_STRUCTURE, "pos_embed_prefix", "fc_norm")
    return [
        entry
        for entry in known_architectures()
        if all(getattr(entry.config, field) == seen[field] for field in fields)
        and (official_names or not entry.official_names)
    ]


def _recognise(fitting: list[Architecture], assumed: Assumed, size: tuple[int, int]) -> Architecture | None:
    """The one architecture of them that the weights are.

    Raises:
        CheckpointError: They compute different things, and the user did not say which one it is.
    """
    said = assumed.given(COMPUTE_KEYS)
    agreeing = [one for one in fitting if all(getattr(one.config, key) == value for key, value in said.items())]
    candidates = [one for one in agreeing if one.usual] or agreeing
    kinds: dict[tuple[object, ...], Architecture] = {}
    for one in candidates:
        kinds.setdefault((*_computes(one), one.lacks), one)
    if len(kinds) > 1:
        raise _question(list(kinds.values()))
    if candidates and candidates[0].lacks is not None:
        raise CheckpointError(f"the weights look like {candidates[0].config.name}, with {candidates[0].lacks}")
    # those for this image size, if there are any
    return next((one for one in candidates if one.config.image_size == size), candidates[0] if candidates else None)


def _question(kinds: list[Architecture]) -> CheckpointError:
    differing = [key for key in COMPUTE_KEYS if len({getattr(one.config, key) for one in kinds}) > 1]
    described = [
        f"{one.config.name} ({one.lacks or ', '.join(f'{key} {text(getattr(one.config, key))}' for key in differing)})"
        for one in kinds
    ]
    buildable = [one for one in kinds if one.lacks is None]
    ways = [f"--arch {one.config.name}" for one in buildable]
    ways += [f"--assume {key}={text(getattr(one.config, key))}" for one in buildable for key in differing[:1]]
    return CheckpointError(
        f"its names and shapes are those of models that compute different things: {', '.join(described)}",
        remedy=f"Say which one it is: {' or '.join(ways)}",
    )


def _computes(one: Architecture) -> tuple[object, ...]:
    return tuple(getattr(one.config, key) for key in COMPUTE_KEYS)


def _rivals(fitting: list[Architecture], like: Architecture, size: tuple[int, int]) -> list[Architecture]:
    """Others of the same shapes with another computation or preprocessing; of each kind the nearest in size."""

    def kind(one: Architecture) -> tuple[object, ...]:
        return (*_computes(one), one.preprocessing.mean, one.preprocessing.std)

    found = {kind(like): like}
    for one in sorted(fitting, key=lambda one: one.config.image_size != size):
        found.setdefault(kind(one), one)
    return [one for one in found.values() if one is not like]


def _unseen(seen: Mapping[str, Any], like: Architecture | None, assumed: Assumed) -> dict[str, Any]:
    """Fields that neither names nor shapes show."""
    mean = seen["fc_norm"] or not seen["class_token"]
    if like is not None:
        fields = {key: getattr(like.config, key) for key in COMPUTE_KEYS}
        # a fine-tuned copy may pool differently
        fields["pool"] = "avg" if mean else "token" if like.config.fc_norm else like.config.pool
    else:
        fields = {key: getattr(VitConfig(), key) for key in COMPUTE_KEYS}
        fields["pool"] = "avg" if mean else "token"
        # CLIP's towers, the ViTs with a norm before block 0, were trained with torch's own epsilon
        fields["norm_eps"] = 1e-5 if seen["pre_norm"] else 1e-6
        fields["heads"] = _usual_heads(seen["width"], assumed)
    return {**fields, **assumed.given((*COMPUTE_KEYS, "resample"))}


def _assumptions(
    config: VitConfig,
    preprocessing: Preprocessing,
    assumed: Assumed,
    like: Architecture | None,
    rivals: list[Architecture],
    *,
    said: bool,
) -> tuple[Assumption, ...]:
    """Everything not seen, with its source: the user, the architecture `like`, or convention."""
    given = assumed.given(Assumed.model_fields)
    name = None if like is None else f"--arch {like.config.name}" if said else like.config.name
    reasons = dict.fromkeys(COMPUTE_KEYS, name or "the usual")
    if name is None:
        reasons["heads"] = "width / 64"
    if not config.class_token or config.distilled:
        del reasons["pool"]  # there is one way
    if config.layer_scale:
        del reasons["norm_placement"]  # likewise
    same_size = like is not None and like.config.image_size == config.image_size
    reasons["grid"] = name if name is not None and same_size else "the square one"
    if config.scales:
        reasons["resample"] = "the usual"
    reasons |= dict.fromkeys(PREPROCESSING_KEYS, name or "the usual of ImageNet")

    def values(of: VitConfig, images: Preprocessing) -> dict[str, Any]:
        return {**of.model_dump(), **images.model_dump(), "grid": config.grid}

    mine = values(config, preprocessing)
    others = {rival.config.name: values(rival.config, rival.preprocessing) for rival in rivals}
    return tuple(
        assumption(key, mine[key], "--assume", {})
        if key in given
        else assumption(key, mine[key], why, {name: fields[key] for name, fields in others.items()})
        for key, why in reasons.items()
    )


def _usual_heads(width: int, assumed: Assumed) -> int:
    if assumed.heads is None and width % 64:
        raise CheckpointError(
            f"the number of attention heads cannot be seen in the weights, nor guessed for width {width}",
            remedy="Give --num-heads",
        )
    return assumed.heads or width // 64


def _config(fields: Mapping[str, Any]) -> VitConfig:
    width, heads = fields["width"], fields["heads"]
    if width % heads:
        raise UsageError(f"{heads} attention heads do not divide the width {width}", remedy="Give another --num-heads")
    try:
        return VitConfig().replace(**fields)
    except UsageError as error:
        raise CheckpointError(f"its weights make no ViT that tmdeploy can build ({error.message})") from None
