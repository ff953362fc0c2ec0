"""Replace the probe inputs by arithmetic on one runtime input, `r` or `keep`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tmdeploy.graph.base import Change

SLOTS, KEPT = "slots_", "kept_"  # probe inputs, one a step


class _Arithmetic:
    """Small int64 tensors of shape [1], computed by nodes that all come first in the graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.nodes: list[ir.Node] = []
        self._constants: dict[int, ir.Value] = {}

    def constant(self, number: int) -> ir.Value:
        if number not in self._constants:
            name = f"count_{number}"
            tensor = ir.tensor(np.array([number], dtype=np.int64), name=name)
            value = ir.Value(name=name, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64), const_value=tensor)
            self._graph.register_initializer(value)
            self._constants[number] = value
        return self._constants[number]

    def apply(self, op: str, *inputs: ir.Value, name: str) -> ir.Value:
        return self._node(op, inputs, name, ir.Shape([1]))

    def arange(self, count: ir.Value, name: str, symbol: str) -> ir.Value:
        """Range(0, count) as [count]."""
        scalars = [
            self._node("Squeeze", (value,), f"{name}_{part}", ir.Shape([]))
            for value, part in ((self.constant(0), "from"), (count, "to"), (self.constant(1), "by"))
        ]
        return self._node("Range", scalars, name, ir.Shape([symbol]))

    def split(self, values: ir.Value, parts: int, name: str) -> list[ir.Value]:
        """The elements of [parts], each as [1]."""
        node = ir.node("Split", [values], attributes={"axis": 0, "num_outputs": parts}, num_outputs=parts)
        for number, output in enumerate(node.outputs):
            output.name, output.shape = f"{name}_{number}", ir.Shape([1])
            output.type = ir.TensorType(ir.DataType.INT64)
        self.nodes.append(node)
        return list(node.outputs)

    def _node(self, op: str, inputs: Sequence[ir.Value], name: str, shape: ir.Shape) -> ir.Value:
        node = ir.node(op, list(inputs), name=name)
        output = node.outputs[0]
        output.name, output.shape, output.type = name, shape, ir.TensorType(ir.DataType.INT64)
        self.nodes.append(node)
        return output


@dataclass(frozen=True)
class RuntimeSchedule:
    """Give the graph one optional input for the schedule, and compute every count from it.

    r: M = N - min(max(r, 0), (N - P) // 2). keep: K = P + max(1, min(keep, N - P)), and M = K + min(1, N - K) where a
    fused token is left behind, else M = K. N is the M of the step before.

    Attributes:
        kind: Name of the new input, `r` or `keep`: int64 [steps], with the recipe's amounts as its default value.
        amounts: The default.
        tokens: Tokens that enter the first step.
        prefix: Prefix tokens P.
        fuse: Whether a step leaves a fused token.
    """

    kind: str
    amounts: Sequence[int]
    tokens: int
    prefix: int
    fuse: bool
    name = "runtime-schedule"

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Change]:
        """In place."""
        graph = model.graph
        steps = len(self.amounts)
        default = ir.tensor(np.array(self.amounts, dtype=np.int64), name=self.kind)
        int64 = ir.TensorType(ir.DataType.INT64)
        schedule = ir.Value(name=self.kind, shape=ir.Shape([steps]), type=int64, const_value=default)
        probes = {str(value.name): value for value in graph.inputs if str(value.name).startswith((SLOTS, KEPT))}
        for probe in probes.values():
            graph.inputs.remove(probe)
        graph.inputs.append(schedule)
        graph.register_initializer(schedule)

        maths = _Arithmetic(graph)
        floor = maths.apply("Max", schedule, maths.constant(0 if self.kind == "r" else 1), name=f"{self.kind}_at_least")
        floor.shape = ir.Shape([steps])
        wanted = maths.split(floor, steps, self.kind) if steps > 1 else [floor]
        current = maths.constant(self.tokens)
        for number, amount in enumerate(wanted):
            name = f"step_{number}"
            patches = maths.apply("Sub", current, maths.constant(self.prefix), name=f"{name}_patches")
            if self.kind == "r":
                limit = maths.apply("Div", patches, maths.constant(2), name=f"{name}_limit")
                removed = maths.apply("Min", amount, limit, name=f"{name}_removed")
                total = maths.apply("Sub", current, removed, name=f"{name}_tokens")
            else:
                chosen = maths.apply("Min", amount, patches, name=f"{name}_chosen")
                total = stay = maths.apply("Add", chosen, maths.constant(self.prefix), name=f"{name}_kept")
                if self.fuse:
                    left = maths.apply("Sub", current, stay, name=f"{name}_left")
                    fused = maths.apply("Min", left, maths.constant(1), name=f"{name}_fused")
                    total = maths.apply("Add", stay, fused, name=f"{name}_tokens")
                    _replace(maths, probes[f"{KEPT}{number}"], stay, f"{name}_kept_slots")
            _replace(maths, probes[f"{SLOTS}{number}"], total, f"{name}_slots")
            current = total
        first = graph[0]
        graph.insert_before(first, maths.nodes)
        counts = {"steps": steps, "probes": len(probes), "nodes": len(maths.nodes)}
        return model, Change(self.name, f"token counts come from the input '{self.kind}'", counts)


def _replace(maths: _Arithmetic, probe: ir.Value, count: ir.Value, name: str) -> None:
    """Give the count to whoever asked for the probe's shape, and a Range to whoever takes the probe itself."""
    assert probe.shape is not None  # noqa: S101 - inputs have one
    slots: ir.Value | None = None
    for node, position in list(probe.uses()):
        if node.op_type == "Shape" and node.domain == "":
            for consumer, index in list(node.outputs[0].uses()):
                consumer.replace_input_with(index, count)
            graph = node.graph
            assert isinstance(graph, ir.Graph)  # noqa: S101
            graph.remove(node, safe=True)
        else:
            slots = slots or maths.arange(count, name, str(probe.shape[0]))
            node.replace_input_with(position, slots)
