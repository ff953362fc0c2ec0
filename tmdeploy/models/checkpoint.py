"""Checkpoints: from a file to a model that is ready for patching, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tmdeploy.errors import CheckpointError, UsageError
from tmdeploy.files import atomic_path, sha256
from tmdeploy.metadata import Preprocessing
from tmdeploy.models.arch import VitConfig, architecture, default_preprocessing
from tmdeploy.models.document import Description
from tmdeploy.models.formats import read_file, write_file
from tmdeploy.models.infer_arch import infer, with_image_size
from tmdeploy.models.official_names import to_timm_names
from tmdeploy.models.pos_embed import resize_pos_embed
from tmdeploy.models.state_dict import find_state_dict
from tmdeploy.models.vit import VisionTransformer
from tmdeploy.recipe import Recipe

_LISTED = 5


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A checkpoint, read.

    Attributes:
        path: Where it is from.
        sha256: Of the file, hexadecimal.
        config: Its architecture, at the image size asked for.
        state_dict: Weights by timm's names, float32; the position embedding fits the image size.
        recipe: Method and schedule it was trained with, where the file says so (tmdeploy's own do).
        preprocessing: From the file, else what the architecture's published weights use.
        class_names: From the file, else none.
        notes: What was assumed or ignored on the way and a user should know, one sentence each.
    """

    path: Path
    sha256: str
    config: VitConfig
    state_dict: Mapping[str, Tensor]
    recipe: Recipe | None
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: str | Path,
    *,
    arch: str | None = None,
    num_heads: int | None = None,
    image_size: int | None = None,
    trust_checkpoint: bool = False,
) -> LoadedCheckpoint:
    """Read a checkpoint: a state_dict in `.pt`, `.pth` or `.safetensors`, or tmdeploy's own of either kind.

    Only weights are unpickled, unless `trust_checkpoint`.

    Args:
        path: The file.
        arch: Registered architecture that it is; None infers it from the weights' shapes.
        num_heads: Attention heads, which shapes do not show; None takes the architecture's, else width / 64.
        image_size: Side of the (square) input wanted, pixels; position embeddings are interpolated. None leaves it.
        trust_checkpoint: Allow unpickling, which runs whatever code the file holds.

    Raises:
        CheckpointError: The file cannot be read, is not trusted, or is no ViT (or not the named one).
        UsageError: Unknown architecture, or impossible heads or image size.
    """
    path = Path(path)
    if arch is not None:
        architecture(arch)  # a typing mistake need not wait for the file
    contents = read_file(path, trust=trust_checkpoint)
    weights, notes = find_state_dict(contents.held, path)
    weights = to_timm_names(weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    description = contents.description
    try:
        if description is None:
            inferred = infer(shapes, arch=arch, num_heads=num_heads, image_size=image_size)
            config, grid, notes = inferred.config, inferred.weights_grid, (*notes, *inferred.notes)
            description = Description(architecture=config, preprocessing=default_preprocessing(config))
        else:
            grid = description.architecture.grid
            _check_agrees(description.architecture, arch, num_heads)
            config = with_image_size(description.architecture, image_size)
    except CheckpointError as error:
        raise CheckpointError(error.message, path=path, remedy=error.remedy) from None
    if config.grid != grid:
        notes = (*notes, *_resize(weights, config, grid, description.recipe, path))
    return LoadedCheckpoint(
        path=path,
        sha256=sha256(path),
        config=config,
        state_dict=weights,
        recipe=description.recipe,
        preprocessing=description.preprocessing.model_copy(update={"image_size": config.image_size}),
        class_names=description.class_names,
        notes=notes,
    )


def build_model(loaded: LoadedCheckpoint) -> VisionTransformer:
    """The model with its weights, in eval mode. It shares the weights' memory with `loaded`.

    Raises:
        CheckpointError: Weights are missing, unexpected, mis-shaped or not finite; the message lists them.
    """
    with torch.device("meta"):  # no initialisation that is overwritten at once
        model = VisionTransformer(loaded.config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in loaded.state_dict.items()}
    problem = _misfit(expected, given)
    if problem is not None:
        raise CheckpointError(
            f"the weights do not fit {_called(loaded.config)}: {problem}",
            path=loaded.path,
            remedy="Name the right architecture with --arch, or save the whole state_dict of a timm-style ViT",
        )
    broken = [name for name, tensor in loaded.state_dict.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f"NaN or infinite values in {_list(broken)}", path=loaded.path, remedy="Get or train the checkpoint again"
        )
    model.load_state_dict(dict(loaded.state_dict), strict=True, assign=True)
    return model.eval()


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    num_heads: int | None = None,
    image_size: int | None = None,
    trust_checkpoint: bool = False,
) -> tuple[VisionTransformer, LoadedCheckpoint]:
    """`load_checkpoint`, then `build_model`. Raises as they do."""
    loaded = load_checkpoint(
        path, arch=arch, num_heads=num_heads, image_size=image_size, trust_checkpoint=trust_checkpoint
    )
    return build_model(loaded), loaded


def save_checkpoint(
    path: str | Path,
    model: VisionTransformer,
    *,
    recipe: Recipe | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Iterable[str] = (),
) -> None:
    """Write tmdeploy's own checkpoint: weights and all that `tmdeploy export` needs to know. Atomic.

    Args:
        path: `.pt` or `.safetensors`.
        model: Patched or not; only its weights and config are stored.
        recipe: Method and schedule it was trained with.
        preprocessing: How images become its input; None takes what the architecture's published weights use.
        class_names: One a class.

    Raises:
        UsageError: Unknown suffix, or a recipe, preprocessing or class names that do not fit the model.
        ArtifactError: The file cannot be written.
    """
    path = Path(path)
    description = Description(
        architecture=model.config,
        recipe=recipe,
        preprocessing=preprocessing or default_preprocessing(model.config),
        class_names=tuple(class_names),
    )
    description.check()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        write_file(temporary, weights, description)


def _check_agrees(config: VitConfig, arch: str | None, num_heads: int | None) -> None:
    """Own files know what they are; an option that says otherwise is a mistake."""
    if num_heads is not None and num_heads != config.heads:
        raise UsageError(f"the checkpoint has {config.heads} attention heads, not {num_heads}", remedy="Leave it out")
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


def _resize(
    weights: dict[str, Tensor], config: VitConfig, grid: tuple[int, int], recipe: Recipe | None, path: Path
) -> tuple[str, ...]:
    prefix = config.num_prefix if config.pos_embed_prefix else 0
    position = weights.get("pos_embed")
    if position is None or position.dim() != 3 or position.shape[1] != prefix + grid[0] * grid[1]:
        raise CheckpointError(
            f"its position embedding does not fit its {grid[0]} x {grid[1]} patches", path=path, remedy="Save it again"
        )
    weights["pos_embed"] = resize_pos_embed(position, old_grid=grid, new_grid=config.grid, num_prefix=prefix)
    if recipe is None or not recipe.layers:
        return ()
    count = grid[0] * grid[1] + config.num_prefix
    return (f"its {recipe.method} schedule was made for {count} tokens; at this image size there are {config.tokens}",)


def _misfit(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str | None:
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
