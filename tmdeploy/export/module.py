"""From a patched module of the user's own to an ONNX file that has been checked against it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import tmdeploy
from tmdeploy.card.arch import arch_names, default_preprocessing
from tmdeploy.card.card import ModelCard, ProofRecord, Provenance
from tmdeploy.card.facts import AnyConfig, ModelFacts
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import ExportError, UnsupportedModel, UsageError
from tmdeploy.export.request import FileForm
from tmdeploy.export.write import write_file
from tmdeploy.models.describe import describe, stated_preprocessing, unmerged
from tmdeploy.patching import halve, reduction_of, unpatch
from tmdeploy.patching.structure import find_blocks, image_shape
from tmdeploy.report.schemas.export import ExportResult
from tmdeploy.system.progress import Progress, silent

_IMAGES = 3
_LIMIT = 1e-4  # of the largest output: what rounding may make of a block that is written in another order


def export_module(
    module: nn.Module,
    form: FileForm,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    name: str | None = None,
    progress: Progress = silent,
) -> ExportResult:
    """Export a module that `patch` accepted, check the file against it, and only then give the file its name.

    The module itself is left alone: a copy in eval mode on the CPU is traced, and compared unmerged with the module as
    it was before it was patched. Its schedule becomes the file's default.

    Args:
        module: Patched.
        form: The file to write.
        preprocessing: How images become its input; None takes what a timm module states of itself.
        class_names: One per class.
        name: What to call the model; None takes its architecture's name, else its class's.
        progress: Called when a stage begins.

    Raises:
        UsageError: An option that cannot be meant, or preprocessing or an image size that nobody states.
        UnsupportedModel: The module is not patched, or returns no tensor [batch, classes].
        ExportError: The graph could not be made, or does not compute what the module computes.
        ArtifactError: The output cannot be written.
    """
    form.check()
    reduction_of(module)
    progress("looking at the module")
    frozen = _frozen(module)
    state = reduction_of(frozen)
    images = _images(frozen, preprocessing)
    config, proof = _known(frozen, images, name)
    spec = preprocessing or stated_preprocessing(module, config)
    if spec is None and config.name in arch_names() and not isinstance(config, ModelFacts):
        spec = default_preprocessing(config)
    if spec is None:
        raise UsageError(
            f"{type(module).__name__} does not say how images become its input",
            remedy="Pass preprocessing=tmdeploy.card.Preprocessing(image_size=..., mean=..., std=..., ...)",
        )
    if class_names and len(class_names) != config.num_classes:
        raise UsageError(f"{len(class_names)} class names for {config.num_classes} classes")
    if "features" in form.outputs and not isinstance(getattr(frozen, "head", None), nn.Module):
        raise UsageError(f"{type(module).__name__} has no `head`, whose input the output features would be")
    if form.precision == "fp16":
        halve(frozen, state.parts)
    card = ModelCard(
        recipe=state.recipe.model_copy(
            update={"amounts": tuple(state.amounts[layer] for layer in state.recipe.layers)}
        ),
        architecture=config,
        preprocessing=spec.model_copy(update={"image_size": config.image_size}),
        class_names=tuple(class_names),
        proof=proof,
        provenance=Provenance(
            source_name=config.name,
            source_sha256=_weights_sha256(frozen),
            tool_version=tmdeploy.__version__,
            torch_version=torch.__version__,
        ),
    )
    return write_file(frozen, card, form, progress)


def _frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode, float32, on the CPU."""
    try:
        made = copy.deepcopy(module)
    except Exception as error:
        raise UnsupportedModel(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error})",
            remedy="Export it before whatever made it so, such as a backward pass that is still held",
        ) from error
    return made.cpu().float().eval().requires_grad_(False)


def _images(module: nn.Module, preprocessing: Preprocessing | None) -> Tensor:
    stated = image_shape(module)
    if stated is None and preprocessing is None:
        raise UsageError(
            f"{type(module).__name__} does not say what images it takes",
            remedy="Pass preprocessing=tmdeploy.card.Preprocessing(image_size=..., mean=..., std=..., ...)",
        )
    channels = 3 if stated is None else stated[0]
    size = preprocessing.image_size if preprocessing is not None else stated[1:]  # type: ignore[index]
    return torch.randn(_IMAGES, channels, *size, generator=torch.Generator().manual_seed(0))


def _known(module: nn.Module, images: Tensor, name: str | None) -> tuple[AnyConfig, ProofRecord]:
    """What the module is, by running it, and that it computes unmerged what it computed before it was patched."""
    entering: list[Tensor] = []
    hook = find_blocks(module)[0].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    with torch.no_grad(), unmerged(module):
        patched = _run(module, images)
    hook.remove()
    plain = unpatch(copy.deepcopy(module))
    with torch.no_grad():
        before = _run(plain, images)
    limit, error = _LIMIT * float(before.abs().max()), float((patched - before).abs().max())
    if not error <= limit:
        raise ExportError(
            f"{type(module).__name__}, patched, does not compute what it computed before, with nothing removed: error "
            f"{error:.2g}, the limit {limit:.1g}",
            remedy="Patch it without check=False, which says what differs",
        )
    ours = describe(plain)
    fits = ours is not None and ours.image_size == tuple(images.shape[-2:])
    config: AnyConfig = ours if ours is not None and fits else _facts(module, images, entering[0], before)
    if name is not None:
        config = config.model_copy(update={"name": name})
    same = patched.argmax(1) == before.argmax(1)
    record = ProofRecord(
        kind="module",
        name=type(module).__qualname__,
        images=len(images),
        error=error,
        limit=limit,
        top1_differing=int((~same).sum()) if config.num_classes else None,
    )
    return config, record


def _run(module: nn.Module, images: Tensor) -> Tensor:
    try:
        out: Any = module(images)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UnsupportedModel(
            f"{type(module).__name__} cannot run on images {list(images.shape)} ({type(error).__name__}: {first})",
            remedy="Pass preprocessing= with the image size that it takes",
        ) from error
    if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != len(images):
        shape = f" {list(out.shape)}" if isinstance(out, Tensor) else ""
        raise UnsupportedModel(
            f"{type(module).__name__} returns a {type(out).__name__}{shape}, not one tensor [batch, classes]",
            remedy="Give it a forward that returns logits or features only",
        )
    return out


def _facts(module: nn.Module, images: Tensor, entering: Tensor, out: Tensor) -> ModelFacts:
    state, blocks = reduction_of(module), find_blocks(module)
    tokens, width = entering.shape[1:]
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    whole = isinstance(grid, (tuple, list)) and len(grid) == 2 and grid[0] * grid[1] == tokens - state.num_prefix
    heads = {int(block.get_submodule("attn").num_heads) for block in blocks}  # type: ignore[arg-type]
    headless = getattr(module, "num_classes", None) == 0 or isinstance(getattr(module, "head", None), nn.Identity)
    kind = type(module)
    card = getattr(module, "pretrained_cfg", None)
    named = card.get("architecture") if isinstance(card, dict) else None
    return ModelFacts(
        module=f"{kind.__module__}.{kind.__qualname__}",
        name=str(named or kind.__name__),
        image_size=(images.shape[-2], images.shape[-1]),
        in_channels=images.shape[1],
        tokens=tokens,
        num_prefix=state.num_prefix,
        grid=(int(grid[0]), int(grid[1])) if whole else None,  # type: ignore[index]
        width=width,
        depth=len(blocks),
        heads=heads.pop() if len(heads) == 1 else None,
        num_classes=0 if headless else out.shape[1],
    )


def _weights_sha256(module: nn.Module) -> str:
    """Of names and bytes of the weights, float32, in order."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
