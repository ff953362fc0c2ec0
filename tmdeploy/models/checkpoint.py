"""Checkpoints: from a file to a model that is ready for patching, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

import tmdeploy
from tmdeploy.card.arch import VitConfig, architecture, default_preprocessing
from tmdeploy.card.card import Assumption, ModelCard, Provenance
from tmdeploy.card.fields import first_problem
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import CheckpointError, UsageError
from tmdeploy.methods import MethodSpec, methods
from tmdeploy.models.assume import Assumed, assumption
from tmdeploy.models.describe import describe, own_weights, stated_preprocessing
from tmdeploy.models.formats import read_file, write_file
from tmdeploy.models.infer_arch import check_described, infer, with_image_size
from tmdeploy.models.official_names import has_official_gammas, to_timm_names
from tmdeploy.models.pos_embed import resize_pos_embed
from tmdeploy.models.state_dict import find_state_dict
from tmdeploy.models.vit import VisionTransformer
from tmdeploy.system.files import atomic_path, sha256

_LISTED = 5
# Modules on the way from the image to the head: a weight in one of them that the ViT lacks changes its result.
_PARTS = frozenset(
    ("patch_embed", "pos_embed", "cls_token", "norm_pre", "blocks", "norm", "fc_norm", "ms_embed", "ms_fuse")
)


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A checkpoint, read.

    Attributes:
        path: Where it is from.
        card: What it is, at the image size asked for: as the file says, if it is one of tmdeploy's own; of others what
            names and shapes of the weights show, and what was assumed.
        state_dict: The ViT's weights by timm's names, float32; the position embedding fits the image size.
        parts: Weights of its method's own parts, or of those of the method asked for.
        notes: What was assumed, chosen or ignored on the way and a user should know, one sentence each.
    """

    path: Path
    card: ModelCard
    state_dict: Mapping[str, Tensor]
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> VitConfig:
        """The card's architecture."""
        assert isinstance(self.card.architecture, VitConfig)  # noqa: S101 - no other module has checkpoints
        return self.card.architecture


def load_checkpoint(
    path: str | Path,
    *,
    arch: str | None = None,
    num_heads: int | None = None,
    assume: Mapping[str, object] | Iterable[str] = (),
    image_size: int | None = None,
    ema: bool = False,
    ignore_extra: bool = False,
    trust_checkpoint: bool = False,
    method: MethodSpec | None = None,
) -> LoadedCheckpoint:
    """Read a checkpoint: a state_dict in a file of torch.save or safetensors, or tmdeploy's own of either kind.

    Only weights are unpickled, unless `trust_checkpoint`.

    Args:
        path: The file.
        arch: Known architecture that it is; None infers it from the weights' names and shapes.
        num_heads: Attention heads; the same as `assume={"heads": ...}`.
        assume: What else names and shapes do not show, by the fields of `assume.Assumed`, or as `KEY=VALUE`.
        image_size: Side of the (square) input wanted, pixels; position embeddings are interpolated. None leaves it.
        ema: Read the averaged copy of the weights.
        ignore_extra: Leave out weights that the ViT does not have, unless they are of its blocks.
        trust_checkpoint: Allow unpickling, which runs whatever code the file holds.
        method: What will reduce its tokens, whose own weights may be among the file's; None: what the file names.

    Raises:
        CheckpointError: The file cannot be read, is not trusted, is no ViT (or not the named one), or may be several.
        UsageError: Unknown architecture, or something assumed or an image size that cannot be meant.
    """
    path = Path(path)
    if arch is not None:
        architecture(arch)  # a typing mistake need not wait for the file
    assumed = Assumed.parse(assume, num_heads=num_heads)
    contents = read_file(path, trust=trust_checkpoint)
    found, notes = find_state_dict(contents.held, path, ema=ema, ignore_extra=ignore_extra)
    card = contents.card
    recipe = None if card is None else card.recipe
    specs = [spec for spec in (method, None if recipe is None else recipe.spec) if spec is not None]
    parts = {name: weight for name, weight in found.items() if any(spec.owns(name) for spec in specs)}
    found = {name: weight for name, weight in found.items() if name not in parts}
    weights = to_timm_names(found)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    assumptions: tuple[Assumption, ...] = ()
    try:
        if card is None:
            named = has_official_gammas(found)
            inferred = infer(shapes, arch=arch, assumed=assumed, image_size=image_size, official_names=named)
            config, grid, preprocessing = inferred.config, inferred.weights_grid, inferred.preprocessing
            assumptions, notes = inferred.assumptions, (*notes, *inferred.notes)
        else:
            described = card.architecture
            if not isinstance(described, VitConfig):
                raise CheckpointError("its tmdeploy description is of a module of somebody's own")
            check_described(described, shapes)
            _check_agrees(described, arch)
            assumed.check_agrees(described, card.preprocessing)
            config, grid = with_image_size(described, image_size), described.grid
            preprocessing = card.preprocessing.model_copy(update={"image_size": config.image_size})
    except CheckpointError as error:
        raise CheckpointError(error.message, path=path, remedy=error.remedy) from None
    if config.grid != grid:
        weights["pos_embed"], resized = _resize(weights["pos_embed"], config, grid, assumed)
        assumptions += (resized,)
        notes += _schedule_notes(config, grid, recipe)
    if ignore_extra:
        weights, ignored = _without_extra(weights, config, path)
        notes += ignored
    found_out: dict[str, object] = {
        "architecture": config,
        "preprocessing": preprocessing,
        "assumptions": assumptions,
        "provenance": Provenance(
            source_name=path.name,
            source_sha256=sha256(path),
            tool_version=tmdeploy.__version__,
            torch_version=torch.__version__,
        ),
    }
    card = ModelCard.model_validate(found_out) if card is None else card.replace(**found_out)
    return LoadedCheckpoint(path, card, weights, parts, notes)


def build_model(loaded: LoadedCheckpoint) -> VisionTransformer:
    """The model with its weights, in eval mode. It shares the weights' memory with `loaded`.

    Raises:
        CheckpointError: Weights are missing, unexpected, mis-shaped or not finite; the message lists them.
    """
    model = _empty_model(loaded.config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in loaded.state_dict.items()}
    problem = misfit(expected, given)
    if problem is not None:
        extra = [name for name in given if name not in expected]
        remedy = "Name the right architecture with --arch, or save the whole state_dict of a timm-style ViT"
        if owners := _methods_of(extra):
            remedy = f"They are weights of a reduction method: export it with --method {' or '.join(owners)}"
        elif extra and all(map(_may_be_ignored, extra)):
            remedy += "; leave what is not its own out with --ignore-extra"
        raise CheckpointError(
            f"the weights do not fit {_called(loaded.config)}: {problem}", path=loaded.path, remedy=remedy
        )
    every = {**loaded.state_dict, **loaded.parts}
    broken = [name for name, tensor in every.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f"NaN or infinite values in {_list(broken)}", path=loaded.path, remedy="Get or train the checkpoint again"
        )
    model.load_state_dict(dict(loaded.state_dict), strict=True, assign=True)
    return model.eval()


def load_model(path: str | Path, **options: Any) -> tuple[VisionTransformer, LoadedCheckpoint]:
    """`load_checkpoint`, with its options, then `build_model`. Raises as they do."""
    loaded = load_checkpoint(path, **options)
    return build_model(loaded), loaded


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    *,
    recipe: Recipe | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Iterable[str] = (),
) -> None:
    """Write tmdeploy's own checkpoint: weights and all that `tmdeploy export` needs to know. Atomic.

    Args:
        path: `.pt` or `.safetensors`.
        model: Ours or a timm-style ViT that computes what ours does (`describe`); patched or not: only its weights
            (those of its method's parts included) and its config are stored.
        recipe: Method and schedule it was trained with.
        preprocessing: How images become its input; None takes what the architecture's published weights use.
        class_names: One per class.

    Raises:
        UsageError: Unknown suffix, parts of a method that the recipe does not name, a recipe, preprocessing or class
            names that do not fit the model, or a model that a checkpoint cannot describe.
        ArtifactError: The file cannot be written.
    """
    path = Path(path)
    config = describe(model)
    if config is None:
        raise UsageError(
            f"a checkpoint cannot describe this {type(model).__name__}: it is no ViT of the family tmdeploy builds",
            remedy="Patch it and export it as it is, with tmdeploy.export(module, 'file.onnx')",
        )
    try:
        card = ModelCard(
            architecture=config,
            recipe=recipe,
            preprocessing=preprocessing or stated_preprocessing(model, config) or default_preprocessing(config),
            class_names=tuple(class_names),
        )
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
    card.steps()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    added = sorted(weights.keys() - own_weights(model).keys())
    if added and (recipe is None or not all(map(recipe.spec.owns, added))):
        raise UsageError(
            f"the model's method has weights ({_list(added)}) and the checkpoint's recipe is not of that method",
            remedy="Pass recipe=tmdeploy.patching.reduction_of(model).recipe",
        )
    with atomic_path(path) as temporary:
        write_file(temporary, weights, card)


def _check_agrees(config: VitConfig, arch: str | None) -> None:
    """Own files know what they are; an --arch that says otherwise is a mistake."""
    if arch is None or arch == config.name:
        return
    named = architecture(arch).config
    free = {"name", "image_size", "num_classes", "scales", "fusion", "resample"}
    ours, theirs = config.model_dump(exclude=free), named.model_dump(exclude=free)
    differing = [f"{field} is {ours[field]}, not {theirs[field]}" for field in ours if ours[field] != theirs[field]]
    if differing:
        raise CheckpointError(
            f"the checkpoint is no {arch}: {'; '.join(differing[:3])}",
            remedy="Leave --arch out: the file names its own",
        )


def _resize(position: Tensor, config: VitConfig, grid: tuple[int, int], assumed: Assumed) -> tuple[Tensor, Assumption]:
    how = assumed.pos_embed_resize or "bicubic_antialias"
    resized = resize_pos_embed(
        position,
        old_grid=grid,
        new_grid=config.grid,
        num_prefix=config.num_prefix if config.pos_embed_prefix else 0,
        antialias=how == "bicubic_antialias",
    )
    why = "timm's way" if assumed.pos_embed_resize is None else "--assume"
    return resized, assumption("pos_embed_resize", how, why, {})


def _schedule_notes(config: VitConfig, grid: tuple[int, int], recipe: Recipe | None) -> tuple[str, ...]:
    if recipe is None or not recipe.layers:
        return ()
    count = grid[0] * grid[1] + config.num_prefix
    return (f"its {recipe.method} schedule was made for {count} tokens; at this image size there are {config.tokens}",)


def _empty_model(config: VitConfig) -> VisionTransformer:
    with torch.device("meta"):  # no initialisation that is overwritten at once
        return VisionTransformer(config)


def _without_extra(
    weights: dict[str, Tensor], config: VitConfig, path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    expected = _empty_model(config).state_dict().keys()
    extra = [name for name in weights if name not in expected]
    essential = [name for name in extra if not _may_be_ignored(name)]
    if essential:
        raise CheckpointError(
            f"--ignore-extra cannot leave out {_list(essential)}: they change what the model computes",
            path=path,
            remedy="Patch your own module with tmdeploy.patch() instead (docs/guide/own-module.md)",
        )
    if not extra:
        return weights, ()
    kept = {name: tensor for name, tensor in weights.items() if name in expected}
    headless = "" if config.num_classes else "; it has no 'head', so its features are put out"
    return kept, (f"left out, since they are no part of the ViT: {_list(extra)}{headless}",)


def _methods_of(weights: list[str]) -> list[str]:
    """The methods, with their usual options, that add parts with such weights."""
    return [info.name for info in methods() if weights and all(map(info.build(info.options()).owns, weights))]


def _may_be_ignored(name: str) -> bool:
    """Whether a weight that the ViT does not have may be something beside it, not a part of what it computes."""
    return name.partition(".")[0] not in _PARTS


def misfit(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str | None:
    """What keeps weights of the shapes `given` from being those `expected`, by name; None if nothing does."""
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    reshaped = [
        f"{name} is {list(given[name])}, not {list(expected[name])}"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    parts = [
        f"{len(names)} {what} ({_list(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", reshaped))
        if names
    ]
    return "; ".join(parts) or None


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _called(config: VitConfig) -> str:
    return config.name if config.name != "vit" else f"a ViT of width {config.width} and depth {config.depth}"
