"""Which nodes of a graph decide, and which compute for those alone: what no change of precision may touch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import onnx_ir as ir

from tmdeploy.card.metadata import StepRecord
from tmdeploy.ops import DOMAIN

Values = dict[str | None, ir.Value]


def named_values(graph: ir.Graph) -> Values:
    """Inputs of the graph and outputs of its nodes, by name."""
    values: Values = {value.name: value for node in graph for value in node.outputs}
    values.update({value.name: value for value in graph.inputs})
    return values


def step_nodes(graph: ir.Graph, steps: Sequence[StepRecord]) -> set[ir.Node]:
    """The planners' nodes; where their bodies were inlined, all nodes of the steps."""
    values = named_values(graph)
    planners = {node for node in graph if node.domain == DOMAIN and node.op_type != "TokenReduce"}
    found = set(planners)
    for step in steps:
        inputs = (step.signal, step.metric, step.x_in, step.size_in)
        ends = [values[name] for name in inputs if name is not None and name in values]
        plan = [values[name] for name in (step.map, step.index)]
        inlined = any(value.producer() not in planners for value in plan)
        if inlined:
            found |= _between(ends, plan)
            made = [values[name] for name in (step.x_out, step.size_out) if name is not None and name in values]
            found |= _between([*ends, *plan], made)
    return found


def deciding_nodes(graph: ir.Graph, steps: Sequence[StepRecord]) -> set[ir.Node]:
    """Reduction steps, and what is computed for them alone: metric, scores, weights of a fusion; not the tokens.

    Args:
        graph: Its nodes sorted, as the standard requires.
        steps: Where the steps are.
    """
    found = step_nodes(graph, steps) | {node for node in graph if node.domain == DOMAIN}
    tokens = passing(graph, steps)
    for node in reversed(graph):
        if tokens.isdisjoint(node.outputs) and any(value.uses() for value in node.outputs) and _feeds_only(node, found):
            found.add(node)
    return found


def passing(graph: ir.Graph, steps: Sequence[StepRecord]) -> set[ir.Value]:
    """Tokens before and after every step: what computes these computes for the model, whatever else reads them."""
    values = named_values(graph)
    return {values[name] for step in steps for name in (step.x_in, step.x_out) if name in values}


def signals(graph: ir.Graph, steps: Sequence[StepRecord]) -> list[ir.Value]:
    """The tensors that planners decide on."""
    values = named_values(graph)
    return [values[name] for step in steps for name in (step.signal, step.metric) if name is not None]


def only_for(ends: Iterable[ir.Value], consumers: Collection[ir.Node], stops: Collection[ir.Value]) -> set[ir.Node]:
    """Nodes all of whose results go to `consumers` or to such nodes: what is computed for the planners alone.

    Args:
        ends: Where to begin, upwards.
        consumers: The planners.
        stops: Not beyond these.
    """
    found = set(consumers)
    walk_up(ends, stops, found, lambda node: _feeds_only(node, found))
    return found - set(consumers)


def made_of(sizes: Sequence[ir.Value], nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """Nodes that compute from sizes and constants alone, such as their logarithm."""
    known, found = set(sizes), set()
    for node in nodes:
        floats = [value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT]
        varying = [value for value in floats if value.const_value is None]
        if varying and node.domain != DOMAIN and all(value in known for value in varying):
            found.add(node)
            known.update(node.outputs)
    return found


def walk_up(
    values: Iterable[ir.Value], stops: Collection[ir.Value], found: set[ir.Node], enter: Callable[[ir.Node], bool]
) -> None:
    """Go upwards from `values`, not beyond `stops`, through every node that `enter` lets in; add those to `found`."""
    seen, queue = set(stops), list(values)
    while queue:
        value = queue.pop(0)
        producer = value.producer()
        if value in seen or producer is None or not enter(producer):
            continue
        seen.add(value)
        found.add(producer)
        queue += [source for source in producer.inputs if source is not None]


def _between(stops: Iterable[ir.Value], ends: Iterable[ir.Value]) -> set[ir.Node]:
    """Nodes that lead to `ends`, up to `stops`."""
    found: set[ir.Node] = set()
    walk_up(ends, set(stops), found, lambda _: True)
    return found


def _feeds_only(node: ir.Node, consumers: Collection[ir.Node]) -> bool:
    return all(user in consumers for value in node.outputs for user, _ in value.uses()) and not any(
        value.is_graph_output() for value in node.outputs
    )
