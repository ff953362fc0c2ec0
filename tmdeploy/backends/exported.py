"""What every backend of an exported `.onnx` shares: where its plans are, and what its schedule may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, IntArray, StepTrace, Trace
from tmdeploy.card.metadata import ArtifactMetadata, StepRecord
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.system.boundary import library_call

_TENSORS = ("x_in", "size_in", "x_out", "size_out")
_RANKS = {"map": 2, "index": 2, "size_in": 2, "size_out": 2}  # others have channels, too
_CLASSIFIER = "Give an image classifier whose first output is [batch, classes]"


def preprocessing_of(metadata: ArtifactMetadata | None, path: Path, height: object, width: object) -> Preprocessing:
    """From the metadata; for a foreign file ImageNet's usual one, at the input's size where that is fixed.

    Raises:
        ArtifactError: There are no images of that size.
    """
    if metadata is not None:
        return metadata.card.preprocessing
    if isinstance(height, int) and isinstance(width, int):
        with library_call(path, f"takes images of {height} x {width} pixels", told=lambda _: ""):
            return Preprocessing(image_size=(height, width))
    return Preprocessing()


def schedule_input(metadata: ArtifactMetadata | None, name: str, schedule: Sequence[int]) -> str:
    """Name of the graph input that takes the schedule.

    Raises:
        UsageError: The file takes none, or not this one.
    """
    if metadata is None or not metadata.card.reduces:
        raise UsageError(f"{name} reduces no tokens, so it takes no schedule")
    if metadata.schedule_input is None:
        raise UsageError(f"{name} was exported with a fixed schedule", remedy="Export it with --runtime-r to change it")
    steps = len(metadata.card.reduction.layers)
    if len(schedule) != steps:
        raise UsageError(f"{len(schedule)} amounts for {steps} reduction steps of {name}")
    if min(schedule) < 0:
        raise UsageError(f"{metadata.schedule_input} is {min(schedule)}; it cannot be negative")
    return metadata.schedule_input


def named_tensors(step: StepRecord, *, tensors: bool) -> list[tuple[str, str]]:
    """What a trace reads of a step: (field of StepTrace, tensor in the graph), with or without the tokens."""
    kinds = ("map", "index", "signal", "metric", *(_TENSORS if tensors else ()))
    return [(kind, name) for kind in kinds if (name := getattr(step, kind)) is not None]


def checked_logits(logits: NDArray[Any], images: int, path: Path) -> Array:
    """What a file computed, if it is one row of numbers per image.

    Raises:
        ArtifactError: It is something else.
    """
    if not isinstance(logits, np.ndarray) or logits.dtype.kind not in "fiu":
        raise ArtifactError("its first output is no tensor of numbers", path=path, remedy=_CLASSIFIER)
    if logits.ndim != 2 or len(logits) != images or logits.shape[1] == 0:
        raise ArtifactError(
            f"its first output is {list(logits.shape)} for {images} images, not one row of class scores an image",
            path=path,
            remedy=_CLASSIFIER,
        )
    return logits.astype(np.float32, copy=False)


def checked_trace(
    metadata: ArtifactMetadata,
    values: dict[str, NDArray[Any]],
    output: str,
    images: int,
    path: Path,
    *,
    tensors: bool,
) -> Trace:
    """Logits and steps from the tensors that `values` has by their names in the graph.

    Raises:
        ArtifactError: A tensor is not what the metadata says.
    """
    for step in metadata.steps:
        for kind, name in named_tensors(step, tensors=tensors):
            value, rank = values[name], _RANKS.get(kind, 3)
            if kind == "signal" and step.op == "TokenSelect":
                rank = 2
            if value.ndim != rank or len(value) != images:
                raise ArtifactError(
                    f"its tensor '{name}' is {list(value.shape)}, not {rank}-dimensional with a row for each of "
                    f"{images} images",
                    path=path,
                    remedy="It was changed after the export: export it again",
                )
    logits = checked_logits(values[output], images, path)
    return Trace(logits, tuple(_step_trace(step, values, tensors=tensors) for step in metadata.steps))


def _step_trace(step: StepRecord, values: dict[str, NDArray[Any]], *, tensors: bool) -> StepTrace:

    def maybe(kind: str, wanted: bool = True) -> Array | None:
        name = getattr(step, kind)
        return values[name].astype(np.float32, copy=False) if name is not None and wanted else None

    plan: IntArray = values[step.map]
    index: IntArray = values[step.index]
    return StepTrace(
        block=step.block,
        op=step.op,
        map=plan,
        index=index,
        signal=values[step.signal].astype(np.float32, copy=False),
        metric=maybe("metric"),
        **{kind: maybe(kind, tensors) for kind in _TENSORS},
    )
