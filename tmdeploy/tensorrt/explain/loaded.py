"""Layers, memory, inputs and outputs of a loaded engine, from TensorRT's engine inspector. Needs its GPU.

Written against the signatures of TensorRT's Python bindings, which tests check (docs/status.md says
what has been run). The inspector's JSON differs among versions and verbosities, so whatever it lacks is left empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tmdeploy.errors import ArtifactError
from tmdeploy.tensorrt.record.layers import IoTensor, Layer, Listing, Operand, classified, nodes_in, type_word
from tmdeploy.tensorrt.record.sidecar import EngineRecord, step_blocks
from tmdeploy.tensorrt.run.compatibility import Fit
from tmdeploy.tensorrt.run.memory import engine_memory
from tmdeploy.tensorrt.run.opening import open_engine
from tmdeploy.tensorrt.sdk.flavor import Log


class LoadedMemory(BaseModel):
    """Memory of a loaded engine, by TensorRT; None: this version does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    activation_bytes: tuple[int, ...] = Field(description="one a profile")
    weights_bytes: int | None = None
    streamable_weights_bytes: int
    streaming_scratch_bytes: int


class LoadedEngine(BaseModel):
    """What TensorRT says about an engine that it loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory: LoadedMemory
    layers: int
    aux_streams: int
    refittable: bool
    profiling_verbosity: str
    io: tuple[IoTensor, ...]
    listings: tuple[Listing, ...] = Field(description="one a profile; empty if the inspector lists nothing")


def inspect_loaded(path: Path, fit: Fit, roles: Mapping[str, str]) -> LoadedEngine:
    """Load an engine and inspect it.

    Args:
        path: The engine.
        fit: The result of `check_fit`.
        roles: Roles of the model's nodes, from the listing beside the engine; may be empty.

    Raises:
        ArtifactError: TensorRT does not load it, or its inspector's answer cannot be read.
    """
    log, module = Log(fit.toolkit.module), fit.toolkit.module
    runtime, engine = open_engine(path, fit, log)
    profiles = range(engine.num_optimization_profiles)
    memory = engine_memory(module, engine, len(profiles))
    listings = [_listing(engine, module, number, path, fit.record, roles) for number in profiles]
    found = LoadedEngine(
        memory=LoadedMemory(
            activation_bytes=memory.profiles,
            weights_bytes=memory.weights,
            streamable_weights_bytes=memory.streamable,
            streaming_scratch_bytes=memory.streaming,
        ),
        layers=int(engine.num_layers),
        aux_streams=int(engine.num_aux_streams),
        refittable=bool(engine.refittable),
        profiling_verbosity=engine.profiling_verbosity.name.lower().replace("_", "-"),
        io=tuple(_io(engine, module, index, len(profiles)) for index in range(engine.num_io_tensors)),
        listings=tuple(listing for listing in listings if listing.layers),
    )
    del engine, runtime  # in this order
    return found


def read_inspector(text: str, path: Path) -> tuple[Layer, ...]:
    """Layers from the inspector's JSON; of an engine with `layer-names-only`, their names alone.

    Raises:
        ArtifactError: It is no JSON, or has no list of layers.
    """
    try:
        entries = json.loads(text)["Layers"]
        return tuple(_layer(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(
            "TensorRT's engine inspector gave an answer that this version cannot read", path=path
        ) from None


def _listing(
    engine: Any, module: Any, number: int, path: Path, record: EngineRecord, roles: Mapping[str, str]
) -> Listing:
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    values = None
    if context is not None:
        values = _set_shapes(context, number, record)
        inspector.execution_context = context  # a context makes the profile's shapes known
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    layers = tuple(classified(layer, roles, step_blocks(record)) for layer in read_inspector(text, path))
    del inspector, context, values
    return Listing(source="engine inspector", profile=number, layers=layers)


def _set_shapes(context: Any, number: int, record: EngineRecord) -> dict[str, Any]:
    """Set the profile's optimum shapes. Returns the shape inputs' values, which must outlive the context."""
    context.set_optimization_profile_async(number, 0)
    held = {}
    for tensor in record.inputs:
        if tensor.shape_input and record.schedule is not None:
            held[tensor.name] = np.array(record.schedule.opt, dtype=np.int64)
            context.set_tensor_address(tensor.name, held[tensor.name].ctypes.data)
        elif not tensor.shape_input:
            batch = record.profiles[number].opt
            context.set_input_shape(tensor.name, tuple(batch if side < 0 else side for side in tensor.shape))
    context.infer_shapes()
    return held


def _io(engine: Any, module: Any, index: int, profiles: int) -> IoTensor:
    name = engine.get_tensor_name(index)
    is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
    shapes = [engine.get_tensor_profile_shape(name, number) for number in range(profiles)] if is_input else []
    return IoTensor(
        name=name,
        location=engine.get_tensor_location(name).name.lower(),
        formats=tuple(engine.get_tensor_format_desc(name, number) for number in range(profiles)),
        ranges=tuple(tuple(tuple(int(side) for side in shape) for shape in ends) for ends in shapes),
    )


def _layer(entry: Any) -> Layer:
    if isinstance(entry, str):
        return Layer(name=entry, nodes=_nodes(entry, ""))
    name = str(entry["Name"])
    return Layer(
        name=name,
        type=str(entry.get("LayerType", "")),
        tactic=str(entry.get("TacticName") or entry.get("TacticValue") or ""),
        nodes=_nodes(name, str(entry.get("Metadata") or "")),
        inputs=_operands(entry.get("Inputs") or ()),
        outputs=_operands(entry.get("Outputs") or ()),
    )


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    """The layer's ONNX nodes; without metadata the layer's name, which outside Myelin consists of their names."""
    return nodes_in(metadata) or tuple(dict.fromkeys(part.strip() for part in name.split(" + ")))


def _operands(entries: Sequence[Mapping[str, Any]]) -> tuple[Operand, ...]:
    found = []
    for entry in entries:
        words = (str(entry.get(key, "")) for key in ("Datatype", "DataType", "Format/Datatype", "Format"))
        shape = entry.get("Dimensions") or ()
        found.append(Operand(type=next(filter(None, map(type_word, words)), ""), shape=tuple(map(int, shape))))
    return tuple(found)
