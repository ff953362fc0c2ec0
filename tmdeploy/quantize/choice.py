"""Which nodes are quantised: matrix products outside the planners, so never sizes, softmax or LayerNorm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from tmdeploy.card.metadata import StepRecord
from tmdeploy.errors import UsageError
from tmdeploy.graph.insert_int8 import PRODUCTS
from tmdeploy.graph.keep import matches
from tmdeploy.graph.planners import deciding_nodes, signals, walk_up

GROUPS = ("metric-source", "patch-embed", "head", "attention")
DEFAULT_KEEP = ("attention",)


@dataclass(frozen=True)
class Choice:
    """What becomes of the matrix products and convolutions outside the planners, by node name.

    Attributes:
        quantized: Names of nodes that compute in the scheme.
        kept: Names of nodes kept in float, with the entry of the list that keeps each.
        activations: Tensors that the quantised nodes read, weights aside.
        planner: Matrix products of reduction steps and of what is computed for them alone.
    """

    quantized: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    activations: tuple[str, ...]
    planner: tuple[str, ...]


def choose(model: onnx.ModelProto, steps: Sequence[StepRecord], keep: Sequence[str]) -> Choice:
    """Decide for every matrix product.

    Candidates are linear layers and convolutions, whose weight is a constant, and attention's two products. What a
    reduction step consists of, and what is computed for it alone, is none.

    Args:
        model: fp32, node names unique.
        steps: The reduction steps, which hold the planners.
        keep: Groups (`GROUPS`), op types, or patterns of node names.

    Raises:
        UsageError: An entry that fits no candidate, or nothing is left to quantise.
    """
    graph = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model)).graph
    planners = deciding_nodes(graph, steps)
    products = [node for node in graph if node.op_type in PRODUCTS and node.domain == ""]
    candidates = [node for node in products if node not in planners and (_is_linear(node) or _is_attention(node))]
    groups = _groups(graph, candidates, steps)
    reason: dict[ir.Node, str] = {}
    for entry in keep:
        found = groups[entry] if entry in GROUPS else {node for node in candidates if matches(node, entry)}
        if not found and entry not in GROUPS:
            raise UsageError(
                f"--keep-float: no node that could be quantised fits '{entry}'",
                remedy=f"Give a group ({', '.join(GROUPS)}), an op type ({', '.join(PRODUCTS)}), or a pattern of names",
            )
        reason.update({node: entry for node in found if node not in reason})
    quantized = [node for node in candidates if node not in reason]
    if not quantized:
        raise UsageError("--keep-float leaves nothing to quantise", remedy="Take entries out of it")
    read = (value for node in quantized for value in node.inputs[:2] if value is not None and not _is_constant(value))
    return Choice(
        quantized=tuple(str(node.name) for node in quantized),
        kept=tuple((str(node.name), reason[node]) for node in candidates if node in reason),
        activations=tuple(dict.fromkeys(str(value.name) for value in read)),
        planner=tuple(str(node.name) for node in products if node in planners),
    )


def _groups(graph: ir.Graph, candidates: Sequence[ir.Node], steps: Sequence[StepRecord]) -> dict[str, set[ir.Node]]:
    return {
        "metric-source": _read_directly(signals(graph, steps), candidates),
        "patch-embed": {node for node in candidates if not _upstream(node, candidates)},
        "head": _read_directly(graph.outputs, candidates),
        "attention": {node for node in candidates if _is_attention(node)},
    }


def _read_directly(values: Iterable[ir.Value], candidates: Sequence[ir.Node]) -> set[ir.Node]:
    """Candidates from which `values` come with no other linear layer and no LayerNorm between."""
    found: set[ir.Node] = set()

    def enter(node: ir.Node) -> bool:
        if node in candidates:
            found.add(node)
            return not _is_linear(node)
        return node.op_type != "LayerNormalization"

    walk_up(values, (), set(), enter)
    return found


def _upstream(node: ir.Node, candidates: Sequence[ir.Node]) -> set[ir.Node]:
    above: set[ir.Node] = set()
    walk_up([value for value in node.inputs if value is not None], (), above, lambda _: True)
    return above & set(candidates)


def _is_linear(node: ir.Node) -> bool:
    """A product with a constant weight on the right."""
    first, weight = node.inputs[0], node.inputs[1]
    if first is None or weight is None or _is_constant(first) or not _is_constant(weight):
        return False
    return weight.dtype == ir.DataType.FLOAT and weight.shape is not None and len(weight.shape) >= 2


def _is_attention(node: ir.Node) -> bool:
    """A product of two computed tensors; outside the planners only attention has one."""
    return node.op_type == "MatMul" and all(value is not None and not _is_constant(value) for value in node.inputs)


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()
