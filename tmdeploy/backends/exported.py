"""What every backend of an exported `.onnx` shares: where its plans are, and what its schedule may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, IntArray, StepTrace
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.metadata import ArtifactMetadata, Preprocessing, StepRecord

if TYPE_CHECKING:
    import onnx

_TENSORS = ("x_in", "size_in", "x_out", "size_out")


def preprocessing_of(metadata: ArtifactMetadata | None, height: object, width: object) -> Preprocessing:
    """From the metadata; for a foreign file ImageNet's usual one, at the input's size where that is fixed."""
    if metadata is not None:
        return metadata.preprocessing
    if isinstance(height, int) and isinstance(width, int):
        return Preprocessing(image_size=(height, width))
    return Preprocessing()


def schedule_input(metadata: ArtifactMetadata | None, name: str, schedule: Sequence[int]) -> str:
    """Name of the graph input that takes the schedule.

    Raises:
        UsageError: The file takes none, or not this one.
    """
    if metadata is None or metadata.schedule_kind is None:
        raise UsageError(f"{name} reduces no tokens, so it takes no schedule")
    if not metadata.runtime_schedule:
        raise UsageError(f"{name} was exported with a fixed schedule", remedy="Export it with --runtime-r to change it")
    if len(schedule) != len(metadata.layers):
        raise UsageError(f"{len(schedule)} amounts for {len(metadata.layers)} reduction steps of {name}")
    if min(schedule) < 0:
        raise UsageError(f"{metadata.schedule_kind} is {min(schedule)}; it cannot be negative")
    return metadata.schedule_kind


def with_step_outputs(model: onnx.ModelProto, metadata: ArtifactMetadata) -> onnx.ModelProto:
    """The model with every step's tensors as graph outputs; the model is changed in place and returned.

    Raises:
        ArtifactError: A recorded tensor is not in the graph.
    """
    import onnx

    present = {output for node in model.graph.node for output in node.output}
    present |= {tensor.name for tensor in model.graph.initializer}  # sizes before the first step, at a static batch
    outputs = {value.name for value in model.graph.output}
    half = onnx.TensorProto.FLOAT16 if metadata.precision == "fp16" else onnx.TensorProto.FLOAT
    for step in metadata.steps:
        for kind, name in named_tensors(step, tensors=True):
            if name not in present:
                raise ArtifactError(
                    f"its metadata names a tensor '{name}' that is not in the graph",
                    path=metadata.source_name,
                    remedy="The file was changed after export: export it again",
                )
            if name in outputs:
                continue
            outputs.add(name)
            element = half if kind.startswith("x_") or kind == "metric" else onnx.TensorProto.FLOAT
            if kind in {"map", "index"}:
                element = onnx.TensorProto.INT32
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
    return model


def named_tensors(step: StepRecord, *, tensors: bool) -> list[tuple[str, str]]:
    """What a trace reads of a step: (field of StepTrace, tensor in the graph), with or without the tokens."""
    kinds = ("map", "index", "signal", "metric", *(_TENSORS if tensors else ()))
    return [(kind, name) for kind in kinds if (name := getattr(step, kind)) is not None]


def step_trace(step: StepRecord, values: dict[str, NDArray[Any]], *, tensors: bool) -> StepTrace:
    """A step from its tensors, which `values` has by their names in the graph."""

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
