"""`--against`: our model, unmerged, beside the one its owner has, before the file gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ProofRecord
from tmdeploy.errors import ExportError
from tmdeploy.export.alternatives import explain, run_module
from tmdeploy.export.owner import Builder, Originals, Owner, open_owner
from tmdeploy.export.saved_outputs import read_outputs
from tmdeploy.export.verify import comparison_images
from tmdeploy.models.checkpoint import LoadedCheckpoint
from tmdeploy.patching import reduction_of
from tmdeploy.system.progress import Progress, silent

Floats = NDArray[np.float32]
Target = str | Path | nn.Module | Builder
_RANDOM_IMAGES = 8
# Of how far the owner's outputs move from image to image, and of their magnitude. Two right implementations in float32
# differ by 4e-7 to 2e-5 of the first, wrong assumptions by 1e-4 to 3 (docs/proof.md).
_SHARE_OF_SPREAD, _SHARE_OF_SIZE = 5e-5, 2e-6


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is right, on which images."""

    record: ProofRecord
    images: Floats
    logits: Floats


def prove(
    target: Target,
    module: nn.Module,
    loaded: LoadedCheckpoint,
    *,
    images: Sequence[Path] = (),
    originals: Originals | None = None,
    progress: Progress = silent,
) -> ProofRecord:
    """Compare a patched module that removes nothing (r = 0, keep = all) with its owner's model.

    Args:
        target: As `open_owner`; a path is an `.npz` with what the owner's model returned (`saved_outputs`).
        module: Patched, float32, in eval mode; its schedule is as before afterwards.
        loaded: The checkpoint it was made from.
        images: Real images or folders to compare on, besides random ones; an `.npz` brings its own.
        originals: As `open_owner`.
        progress: Called with a short description.

    Returns:
        What was compared, and how large the error is.

    Raises:
        ExportError: They do not compute the same, or the owner's model cannot be had or run.
        UsageError: There is no such model.
        DataError: The file of outputs or the images cannot be used.
        EnvironmentMissing: timm or transformers is not installed.
    """
    progress("running the owner's model")
    reference = _reference(target, loaded, images, originals)
    progress("comparing with the owner's model")
    ours = _unmerged(module, reference.images, loaded.config)
    theirs, name = reference.logits, reference.record.name
    if ours.shape != theirs.shape:
        raise ExportError(
            f"--against {name}: it returns {list(theirs.shape[1:])} values an image, our model {list(ours.shape[1:])}",
            path=loaded.path,
            remedy="Build the model that the checkpoint was saved from",
        )
    limit = _limit(theirs, name)
    error = _error(ours, theirs)
    differing = int((ours.argmax(1) != theirs.argmax(1)).sum()) if loaded.config.num_classes else None
    record = reference.record.model_copy(update={"error": error, "limit": limit, "top1_differing": differing})
    if error > limit:
        progress("looking for the assumption that is wrong")
        raise _refuted(record, loaded, reference)
    return record


def _reference(
    target: Target, loaded: LoadedCheckpoint, paths: Sequence[Path], originals: Originals | None
) -> _Reference:
    config = loaded.config
    if isinstance(target, Path):
        saved = read_outputs(target, config, loaded.card.preprocessing)
        record = ProofRecord(
            kind="outputs",
            name=target.name,
            images=len(saved.images),
            normalisation=saved.pixels,
            error=0,
            limit=0,
        )
        return _Reference(record, saved.images, saved.logits)
    with open_owner(target, loaded, originals=originals) as owner:
        _check_preprocessing(owner, loaded)
        samples = comparison_images(paths, loaded.card, random=_RANDOM_IMAGES)
        images = samples.images.astype(np.float32, copy=False)
        record = ProofRecord(
            kind=owner.kind, name=owner.name, weights=owner.weights, images=len(images), error=0, limit=0
        )
        return _Reference(record, images, owner.logits(images, config))


def _check_preprocessing(owner: Owner, loaded: LoadedCheckpoint) -> None:
    """Statistics that we assumed, unasked, must be those the owner's model states."""
    ours = loaded.card.preprocessing
    assumed = {one.key for one in loaded.card.assumptions if not one.why.startswith("--")}
    for field in ("mean", "std"):
        stated, used = owner.preprocessing.get(field), getattr(ours, field)
        if field not in assumed or not isinstance(stated, (tuple, list)) or len(stated) != len(used):
            continue
        if not np.allclose(stated, used, atol=1e-3):
            text = ",".join(f"{value:g}" for value in stated)
            raise ExportError(
                f"--against {owner.name}: it states {field} {text} of its input, {_text(used)} was assumed",
                remedy=f"Say which is right: --assume {field}={text} or --assume {field}={_text(used)}",
            )


def _text(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _unmerged(module: nn.Module, images: Floats, config: VitConfig) -> Floats:
    state = reduction_of(module)
    nothing = 0 if state.spec.schedule_kind == "r" else config.tokens - config.num_prefix
    before, state.amounts = state.amounts, dict.fromkeys(state.recipe.layers, nothing)
    try:
        return run_module(module, images)
    finally:
        state.amounts = before
        state.begin()


def _limit(logits: Floats, name: str) -> float:
    """Largest error that rounding explains.

    Raises:
        ExportError: The outputs hardly depend on the image, so that nothing can be told from them.
    """
    if not np.isfinite(logits).all():
        raise ExportError(f"--against {name}: it returns values that are not finite", remedy="Check the owner's model")
    size = float(np.abs(logits).max())
    spread = float(np.abs(logits - logits.mean(axis=0)).max()) if len(logits) > 1 else size
    limit = _SHARE_OF_SPREAD * spread + _SHARE_OF_SIZE * size
    if spread <= 100 * _SHARE_OF_SIZE * size:
        raise ExportError(
            f"--against {name}: its outputs are the same for every image (within {spread:.1g}), which proves nothing",
            remedy="Give the trained weights, and images that differ (--verify-data)",
        )
    return limit


def _error(ours: Floats, theirs: Floats) -> float:
    difference = np.abs(ours - theirs)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _refuted(record: ProofRecord, loaded: LoadedCheckpoint, reference: _Reference) -> ExportError:
    different = (
        ""
        if record.top1_differing is None
        else f", the top-1 class differs in {record.top1_differing} of {record.images} images"
    )
    weights = " (with the weights it brought)" if record.weights == "own" else ""
    return ExportError(
        f"read as it is, it does not compute what {record.owner_text} computes{weights}: largest error "
        f"{record.error:.2g}, the limit {record.limit:.1g}{different}",
        path=loaded.path,
        remedy=explain(loaded, reference.images, reference.logits, record.limit),
    )
