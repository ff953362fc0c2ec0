"""Precision is a property of the graph: convert an fp32 file to fp16 or bf16, and leave in fp32 what must stay.

TensorRT 11 has no precision flags; networks are strongly typed. So tensors get their type here, with a Cast wherever a
node of the one kind meets a tensor of the other.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.metadata import ArtifactMetadata, StepRecord
from tmdeploy.ops import DOMAIN

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
GROUPS = ("planner", "size", "softmax", "layernorm")
_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_GROUP_OPS = {"softmax": ("Softmax", "LogSoftmax"), "layernorm": ("LayerNormalization",)}
# Their types are fixed by an attribute or by the standard, so they keep them.
_TYPED = {"Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "QuantizeLinear", "DequantizeLinear", "Resize"}
_FP16_MAX = 65504.0


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        narrowed: Nodes that now compute in the low precision.
        kept: Floating-point nodes that still compute in fp32.
        casts: Casts that were inserted.
        clipped: Names of weights with values beyond fp16, which were clipped.
    """

    narrowed: int
    kept: int
    casts: int
    clipped: tuple[str, ...] = ()


def parse_keep(text: str | None) -> tuple[str, ...]:
    """`planner,Erf` replaces the default set; `+Erf,-softmax` widens and narrows it.

    Raises:
        UsageError: Both forms mixed, or a group taken out that is not in it.
    """
    if text is None:
        return GROUPS
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    signed = [entry for entry in entries if entry[0] in "+-"]
    if not signed:
        return tuple(entries)
    if len(signed) != len(entries):
        raise UsageError(f"--keep-fp32 {text}: mixes entries with and without a sign", remedy="Give all or none a sign")
    kept = list(GROUPS)
    for entry in signed:
        name = entry[1:]
        if entry[0] == "+":
            kept.append(name)
        elif name in kept:
            kept.remove(name)
        else:
            raise UsageError(f"--keep-fp32 {text}: '{name}' is not in the set ({', '.join(kept)})")
    return tuple(kept)


def convert(
    model: onnx.ModelProto, precision: str, keep: Sequence[str], metadata: ArtifactMetadata | None, *, path: str
) -> tuple[onnx.ModelProto, Conversion]:
    """Convert an fp32 model. Inputs and outputs keep their types.

    Args:
        model: As exported, function bodies not yet inlined.
        precision: `fp16` or `bf16`.
        keep: What stays in fp32: groups (`GROUPS`), op types, or patterns of node names.
        metadata: Says where the reduction steps are.
        path: For messages.

    Raises:
        UsageError: An entry of `keep` that fits no node.
        ArtifactError: Control flow, or tensors of unknown type.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = ir.serde.deserialize_model(inferred)
    steps = metadata.steps if metadata is not None else ()
    wide = _wide_nodes(graph.graph, keep, steps)
    converter = _Converter(graph.graph, _TYPES[precision], wide, keep_sizes="size" in keep, path=path)
    done = converter.run()
    return ir.serde.serialize_model(graph), done


class _Converter:
    def __init__(
        self, graph: ir.Graph, low: ir.DataType, wide: Collection[ir.Node], *, keep_sizes: bool, path: str
    ) -> None:
        self._graph, self._low, self._wide, self._path = graph, low, set(wide), path
        self._keep_sizes = keep_sizes
        self._casted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._clipped: list[str] = []
        self._casts = 0

    def run(self) -> Conversion:
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
        return Conversion(narrowed, kept, self._casts, tuple(self._clipped))

    def _low_ports(self, node: ir.Node) -> tuple[set[int], set[int]]:
        """Positions of inputs and outputs that are of the low precision."""
        if node in self._wide or node.op_type in _TYPED:
            return set(), set()
        if node.domain == DOMAIN:  # TokenReduce: x and y; weights and their sums are fp32, as its body has them
            return {0}, {0}
        return set(range(len(node.inputs))), set(range(len(node.outputs)))

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
            self._clipped.append(str(value.name))
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


def _wide_nodes(graph: ir.Graph, keep: Sequence[str], steps: Sequence[StepRecord]) -> set[ir.Node]:
    wide: set[ir.Node] = set()
    nodes = list(graph)
    planners = [node for node in nodes if node.domain == DOMAIN and node.op_type != "TokenReduce"]
    wide.update(planners)  # their bodies compute in fp32 whatever they are given
    values = {value.name: value for node in nodes for value in node.outputs}
    values.update({value.name: value for value in graph.inputs})
    for step in steps:  # bodies that were inlined: so do these
        inputs = (step.signal, step.metric, step.x_in, step.size_in)
        ends = [values[name] for name in inputs if name is not None and name in values]
        plan = [values[name] for name in (step.map, step.index)]
        inlined = any(value.producer() not in planners for value in plan)
        if inlined:
            wide |= _between(ends, plan)
            made = [values[name] for name in (step.x_out, step.size_out) if name is not None and name in values]
            wide |= _between([*ends, *plan], made)
    for entry in keep:
        found = _group(entry, nodes, wide, steps, values)
        if not found and entry not in GROUPS:
            raise UsageError(
                f"--keep-fp32: no node fits '{entry}'",
                remedy=f"Give a group ({', '.join(GROUPS)}), an op type, or a pattern of node names",
            )
        wide |= found
    return wide


def _group(
    entry: str,
    nodes: Sequence[ir.Node],
    wide: set[ir.Node],
    steps: Sequence[StepRecord],
    values: dict[str | None, ir.Value],
) -> set[ir.Node]:
    if entry in _GROUP_OPS:
        return {node for node in nodes if node.domain == "" and node.op_type in _GROUP_OPS[entry]}
    if entry == "planner":
        signals = [values[name] for step in steps for name in (step.signal, step.metric) if name is not None]
        return _only_for(signals, wide)
    if entry == "size":
        return _made_of([values[step.size_out] for step in steps if step.size_out is not None], nodes)
    return {node for node in nodes if node.op_type == entry or fnmatch.fnmatchcase(str(node.name), entry)}


def _between(stops: Iterable[ir.Value], ends: Iterable[ir.Value]) -> set[ir.Node]:
    """Nodes that lead to `ends`, up to `stops`."""
    found: set[ir.Node] = set()
    _walk(ends, set(stops), found, lambda _: True)
    return found


def _only_for(ends: Iterable[ir.Value], consumers: Collection[ir.Node]) -> set[ir.Node]:
    """Nodes all of whose results go to `consumers` or to such nodes: what is computed for the planners alone."""
    found = set(consumers)
    _walk(ends, set(), found, lambda node: _feeds_only(node, found))
    return found - set(consumers)


def _feeds_only(node: ir.Node, consumers: Collection[ir.Node]) -> bool:
    return all(user in consumers for value in node.outputs for user, _ in value.uses()) and not any(
        value.is_graph_output() for value in node.outputs
    )


def _walk(
    values: Iterable[ir.Value], stops: set[ir.Value], found: set[ir.Node], enter: Callable[[ir.Node], bool]
) -> None:
    """Go upwards from `values` through every node that `enter` lets in, and collect those."""
    seen, queue = set(stops), list(values)
    while queue:
        value = queue.pop(0)
        producer = value.producer()
        if value in seen or producer is None or not enter(producer):
            continue
        seen.add(value)
        found.add(producer)
        queue += [source for source in producer.inputs if source is not None]


def _made_of(sizes: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Nodes that compute from sizes and constants alone, such as their logarithm."""
    known, found = set(sizes), set()
    for node in nodes:
        floats = [value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT]
        varying = [value for value in floats if value.const_value is None]
        if varying and node.domain != DOMAIN and all(value in known for value in varying):
            found.add(node)
            known.update(node.outputs)
    return found


def _attributes(node: ir.Node) -> Iterable[Any]:
    return node.attributes.values()
