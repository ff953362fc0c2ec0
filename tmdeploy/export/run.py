"""`export_checkpoint`: from a checkpoint to an ONNX file that has been checked against PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tmdeploy.card.card import ModelCard
from tmdeploy.card.recipe import Recipe, make_recipe
from tmdeploy.export.against import prove
from tmdeploy.export.request import ExportRequest
from tmdeploy.export.write import write_file
from tmdeploy.methods import build_method
from tmdeploy.models.assume import assumption_notes
from tmdeploy.models.checkpoint import load_checkpoint
from tmdeploy.models.formats import read_file
from tmdeploy.models.state_dict import find_state_dict
from tmdeploy.patching import halve, patched_model, reduction_of
from tmdeploy.report.schemas.export import ExportResult
from tmdeploy.system.progress import Progress, silent


def export_checkpoint(request: ExportRequest, progress: Progress = silent) -> ExportResult:
    """Export a checkpoint, check the file, and only then give it its name.

    Args:
        request: What to do.
        progress: Called with a short description when a stage begins.

    Raises:
        UsageError: An option that cannot be meant.
        CheckpointError: The checkpoint cannot be read or does not fit.
        ExportError: The graph could not be made, or does not compute what PyTorch or the owner's model computes.
        DataError: Images to compare on, or the owner's saved outputs, cannot be used.
        ArtifactError: The output cannot be written.
    """
    request.check()
    progress("reading the checkpoint")
    loaded = load_checkpoint(
        request.checkpoint,
        arch=request.arch,
        num_heads=request.num_heads,
        assume=request.assume,
        image_size=request.image_size,
        ema=request.ema,
        ignore_extra=request.ignore_extra,
        trust_checkpoint=request.trust_checkpoint,
        method=None if request.method is None else build_method(request.method, request.options),
    )
    card = loaded.card.replace(recipe=_recipe(request, loaded.card))
    module = patched_model(loaded, card.reduction, deterministic=request.deterministic)
    proof = None
    if request.against is not None:  # first: the owner's model says sooner than the file what is wrong
        proof = prove(
            request.saved_outputs or request.against,
            module,
            loaded,
            images=[Path(path) for path in request.verify_images],
            originals=lambda: _original_weights(request),
            progress=progress,
        )
    if request.precision == "fp16":
        halve(module, reduction_of(module).parts)
    result = write_file(module, card.replace(proof=proof), request, progress)
    told = loaded.notes
    if proof is not None:
        settled = assumption_notes(card.assumptions)
        told = tuple(note for note in told if note not in settled)
        told += assumption_notes(card.assumptions, proven=True)
    notes = told + card.remarks(text=request.schedule or str(request.keep))
    if request.method is None and loaded.card.recipe is None:
        notes += ("the checkpoint names no reduction method, so the file merges nothing: name one with --method",)
    return result.model_copy(update={"notes": notes + result.notes})


def _original_weights(request: ExportRequest) -> Mapping[str, Tensor]:
    """The weights by the names in the file, read again: cheaper than two copies that nobody asks for."""
    path = Path(request.checkpoint)
    held = read_file(path, trust=request.trust_checkpoint).held
    return find_state_dict(held, path, ema=request.ema, ignore_extra=request.ignore_extra)[0]


def _recipe(request: ExportRequest, card: ModelCard) -> Recipe:
    config, stored = card.architecture, card.recipe
    typed = any(value is not None for value in (request.r, request.keep, request.schedule, request.layers))
    if request.method is None and stored is not None and not typed and not request.options:
        card.steps()
        return stored.model_copy(update={"options": dict(stored.spec.options)})  # with those that it leaves open
    method = request.method or (stored.method if stored is not None else "none")
    options = dict(request.options)
    if stored is not None and stored.method == method:
        options = {**stored.options, **options}
    return make_recipe(
        method,
        depth=config.depth,
        tokens=config.tokens,
        prefix=config.num_prefix,
        r=request.r,
        keep=request.keep,
        schedule=request.schedule,
        layers=request.layers,
        options=options,
    )
