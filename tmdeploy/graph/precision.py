"""Precision is a property of the graph: convert an fp32 file to fp16 or bf16, and leave in fp32 what must stay.

TensorRT 11 has no precision flags; networks are strongly typed. So tensors get their type here, with a Cast wherever a
node of the one kind meets a tensor of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tmdeploy.card.metadata import StepRecord
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.graph import keep
from tmdeploy.graph.base import Change
from tmdeploy.graph.planners import made_of, named_values, only_for, passing, signals, step_nodes
from tmdeploy.ops import DOMAIN

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
GROUPS = ("planner", "size", "softmax", "layernorm")
_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_GROUP_OPS = {"softmax": ("Softmax", "LogSoftmax"), "layernorm": ("LayerNormalization",)}
# Their types are fixed by an attribute or by the standard, so they keep them.
_TYPED = {"Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "Resize"}
_FP16_MAX = 65504.0
_SCALE_RTOL = 1 / 256  # half a step of int8 at full scale


def parse_keep(text: str | None) -> tuple[str, ...]:
    """`planner,Erf` replaces the default set; `+Erf,-softmax` widens and narrows it.

    Raises:
        UsageError: Both forms mixed, or a group taken out that is not in it.
    """
    return keep.parse_keep(text, GROUPS, "--keep-fp32")


@dataclass(frozen=True)
class ConvertPrecision:
    """Convert an fp32 model, as exported: function bodies not yet inlined. Inputs and outputs keep their types.

    Attributes:
        precision: `fp16` or `bf16`.
        kept: What stays in fp32: groups (`GROUPS`), op types, or patterns of node names.
        steps: Where the reduction steps are.
        path: Path for messages.
    """

    precision: str
    kept: Sequence[str]
    steps: Sequence[StepRecord]
    path: str
    name = "convert-precision"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model. The change counts nodes that now compute in the low precision, and those still in fp32.

        Raises:
            UsageError: An entry of `kept` that fits no node.
            ArtifactError: Control flow, or tensors of unknown type.
        """
        inferred = onnx.shape_inference.infer_shapes(model)
        converted = ir.serde.deserialize_model(inferred)
        wide = _wide_nodes(converted.graph, self.kept, self.steps)
        converter = _Converter(converted.graph, _TYPES[self.precision], wide, path=self.path)
        counts = converter.run()
        notes: tuple[str, ...] = ()
        if converter.clipped:
            notes = (f"weights beyond fp16 were clipped to 65504: {', '.join(converter.clipped)}",)
        done = Change(self.name, f"nodes compute in {self.precision}", counts, notes)
        return ir.serde.serialize_model(converted), done


class _Converter:
    def __init__(self, graph: ir.Graph, low: ir.DataType, wide: Collection[ir.Node], *, path: str) -> None:
        self._graph, self._low, self._wide, self._path = graph, low, set(wide), path
        self._casted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.clipped: list[str] = []  # weights with values beyond fp16
        self._casts = 0

    def run(self) -> dict[str, int]:
        narrowed = kept = 0
        for node in list(self._graph):
            if any(
                attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attribute in _attributes(node)
            ):
                raise ArtifactError(
                    f"node '{node.name}' ({node.op_type}) is control flow, which cannot be converted",
                    path=self._path,
                    remedy="Build with --precision fp32 or tf32",
                )
            floating = any(self._is_float(value) for value in (*node.inputs, *node.outputs))
            low_inputs, low_outputs = self._low_ports(node)
            for position, value in enumerate(node.inputs):
                if value is None or not self._is_float(value) or node.op_type == "Cast":
                    continue
                wanted = self._low if position in low_inputs else ir.DataType.FLOAT
                node.replace_input_with(position, self._as(value, wanted))
            for position, value in enumerate(node.outputs):
                if position in low_outputs and value.dtype == ir.DataType.FLOAT:
                    value.type = ir.TensorType(self._low)
            narrowed += floating and bool(low_outputs)
            kept += floating and not low_outputs and node.op_type not in _TYPED
        for position, value in enumerate(self._graph.outputs):
            if value.dtype == self._low:
                self._graph.outputs[position] = self._output(value)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
                del self._graph.initializers[name]  # its low-precision copy took its place
        return {"narrowed": narrowed, "kept": kept, "casts": self._casts}

    def _low_ports(self, node: ir.Node) -> tuple[set[int], set[int]]:
        """Positions of inputs and outputs that are of the low precision."""
        if node in self._wide or node.op_type in _TYPED:
            return set(), set()
        if node.op_type == "QuantizeLinear":  # as its input is: what is fp32 anyway is quantised without a detour
            low = self._dtype(node.inputs[0]) == self._low and self._scale_fits(node)
            return ({0, 1}, set()) if low else (set(), set())
        if node.op_type == "DequantizeLinear":  # as its users are: a Cast between would hide the pair from TensorRT
            users = node.outputs[0].uses()
            low = self._scale_fits(node) and all(position in self._low_ports(user)[0] for user, position in users)
            return ({1}, {0}) if low else (set(), set())
        if node.domain == DOMAIN:  # TokenReduce: x and y; weights and their sums are fp32, as its body has them
            return {0}, {0}
        return set(range(len(node.inputs))), set(range(len(node.outputs)))

    def _dtype(self, value: ir.Value | None) -> ir.DataType | None:
        return None if value is None else value.dtype

    def _scale_fits(self, node: ir.Node) -> bool:
        """Whether the low precision can hold the scale: fp16 rounds small ones, and loses the smallest."""
        scale = node.inputs[1]
        if scale is None or scale.const_value is None:
            return False
        exact = scale.const_value.numpy().astype(np.float32)
        rounded = exact.astype(self._low.numpy()).astype(np.float32)
        return bool((np.abs(rounded - exact) <= _SCALE_RTOL * exact).all())

    def _is_float(self, value: ir.Value | None) -> bool:
        if value is None:
            return False
        if value.dtype is None:
            raise ArtifactError(f"the type of its tensor '{value.name}' is unknown", path=self._path)
        return value.dtype in {ir.DataType.FLOAT, self._low}

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._casted:
            constant = value.const_value is not None and not value.is_graph_input()
            self._casted[key] = self._weight(value, dtype) if constant else self._cast(value, dtype)
        return self._casted[key]

    def _weight(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        assert value.const_value is not None  # noqa: S101 - the caller looked
        numbers = value.const_value.numpy().astype(np.float32)
        finite = np.isfinite(numbers)
        if dtype == ir.DataType.FLOAT16 and np.abs(numbers[finite]).max(initial=0.0) > _FP16_MAX:
            numbers = np.where(finite, np.clip(numbers, -_FP16_MAX, _FP16_MAX), numbers)
            self.clipped.append(str(value.name))
        name = f"{value.name}_{dtype.name.lower()}"
        tensor = ir.tensor(numbers.astype(dtype.numpy()), dtype=dtype, name=name)
        fresh = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
        self._graph.register_initializer(fresh)
        return fresh

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str | None = None) -> ir.Value:
        node = ir.node("Cast", [value], attributes={"to": dtype}, name=f"{value.name}/to_{dtype.name.lower()}")
        fresh = node.outputs[0]
        fresh.name = name or str(node.name)
        fresh.shape, fresh.type = value.shape, ir.TensorType(dtype)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        self._casts += 1
        return fresh

    def _output(self, value: ir.Value) -> ir.Value:
        name = str(value.name)
        value.name = f"{name}_{self._low.name.lower()}"
        return self._cast(value, ir.DataType.FLOAT, name=name)


def _wide_nodes(graph: ir.Graph, entries: Sequence[str], steps: Sequence[StepRecord]) -> set[ir.Node]:
    wide = step_nodes(graph, steps)  # planners' bodies compute in fp32 whatever they are given
    for entry in entries:
        found = _group(entry, graph, wide, steps)
        if not found and entry not in GROUPS:
            raise UsageError(
                f"--keep-fp32: no node fits '{entry}'",
                remedy=f"Give a group ({', '.join(GROUPS)}), an op type, or a pattern of node names",
            )
        wide |= found
    return wide


def _group(entry: str, graph: ir.Graph, wide: set[ir.Node], steps: Sequence[StepRecord]) -> set[ir.Node]:
    if entry in _GROUP_OPS:
        return {node for node in graph if node.domain == "" and node.op_type in _GROUP_OPS[entry]}
    if entry == "planner":
        return only_for(signals(graph, steps), wide, passing(graph, steps))
    if entry == "size":
        values = named_values(graph)
        return made_of([values[step.size_out] for step in steps if step.size_out is not None], graph)
    return {node for node in graph if keep.matches(node, entry)}


def _attributes(node: ir.Node) -> Iterable[Any]:
    return node.attributes.values()
