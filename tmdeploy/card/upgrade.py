"""Documents of older versions, brought up to date: the one place that knows what files said before.

A model card travels in three documents: a checkpoint's description, an `.onnx` file's metadata and an engine's sidecar
(which has the metadata of the file that it was built from). Each has a version, and so has the card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from tmdeploy.errors import ArtifactError, TmdeployError

CARD_VERSION: Final = 1
CHECKPOINT_VERSION: Final = 2
METADATA_VERSION: Final = 2
SIDECAR_VERSION: Final = 2

Kind = Literal["model card", "tmdeploy description", "tmdeploy metadata", "sidecar"]
Document = dict[str, Any]


def upgraded(document: object, kind: Kind, path: str | Path, *, error: type[TmdeployError] = ArtifactError) -> object:
    """A document as this version writes it. What is no document of any version is left to whoever validates it.

    Args:
        document: As JSON types; it is not changed.
        kind: What it should be.
        path: Where it is from.
        error: What to raise.

    Raises:
        TmdeployError: A newer tmdeploy wrote it, or some part of it.
    """
    if not isinstance(document, dict):
        return document
    version, steps = document.get("version", 1), _STEPS[kind]
    if isinstance(version, int) and len(steps) + 1 < version < 1 << 63:
        raise error(
            f"its {kind} has version {version}, and this tmdeploy reads up to {len(steps) + 1}",
            path=path,
            remedy="A newer tmdeploy wrote it: upgrade this one",
        )
    if isinstance(version, int) and version >= 1:
        for step in steps[version - 1 :]:
            document = step(document)
    name, part = _PART.get(kind, ("", kind))
    if name in document:
        document = {**document, name: upgraded(document[name], part, path, error=error)}
    return document


def _checkpoint_1(old: Document) -> Document:
    return {**_renamed(old, {"config": "card"}), "version": 2}


def _metadata_1(old: Document) -> Document:
    """The model's facts lay beside the file's; the schedule's input was told by two fields."""
    rest = dict(old)
    card = _taken(rest, ("architecture", "preprocessing", "class_names", "assumptions", "proof"))
    recipe = _taken(rest, ("method", "method_options", "layers", "schedule"))
    card["recipe"] = _renamed(recipe, {"method_options": "options", "schedule": "amounts"})
    card["provenance"] = _taken(rest, ("source_name", "source_sha256", "tool_version", "torch_version"))
    kind = rest.pop("schedule_kind", None)
    if rest.pop("runtime_schedule", False):
        rest["schedule_input"] = kind or "unnamed"  # which is refused
    return {**rest, "version": 2, "card": card}


def _sidecar_1(old: Document) -> Document:
    return {**_renamed(old, {"flavour": "flavor"}), "schema": "tmdeploy.engine/2", "version": 2}


def _taken(document: Document, names: Iterable[str]) -> Document:
    """Remove these fields from it, those that it has."""
    return {name: document.pop(name) for name in names if name in document}


def _renamed(document: Document, names: Mapping[str, str]) -> Document:
    return {names.get(name, name): value for name, value in document.items()}


# What turns a version of a document into the next, the first version first; one more than there are is the current.
_STEPS: Mapping[Kind, tuple[Callable[[Document], Document], ...]] = {
    "model card": (),
    "tmdeploy description": (_checkpoint_1,),
    "tmdeploy metadata": (_metadata_1,),
    "sidecar": (_sidecar_1,),
}
# The field of a document that is one itself.
_PART: Mapping[Kind, tuple[str, Kind]] = {
    "tmdeploy description": ("card", "model card"),
    "tmdeploy metadata": ("card", "model card"),
    "sidecar": ("model", "tmdeploy metadata"),
}
