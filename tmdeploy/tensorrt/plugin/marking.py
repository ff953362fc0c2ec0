"""Turn the token nodes of an ONNX model into plugin nodes for TensorRT's parser, and check that it took them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tmdeploy.errors import CheckFailed, UnsupportedModel
from tmdeploy.ops import DOMAIN
from tmdeploy.tensorrt.plugin.launch import MATCH_ORDERS, MODES, SELECT_ORDERS
from tmdeploy.tensorrt.plugin.operators import BY_NAME, NAMESPACE, SETTINGS, VERSION

if TYPE_CHECKING:
    import onnx

_SELECT_BY_LEFTOVER = {"drop": "TokenSelectDropAot", "fuse": "TokenSelectFuseAot", "nearest": "TokenSelectNearestAot"}
# Positions in the ONNX op of the inputs a plugin takes.
_INPUTS = {
    "TokenMatchAot": (0, 1),
    "TokenSelectDropAot": (0, 1),
    "TokenSelectFuseAot": (0, 1, 3),
    "TokenSelectNearestAot": (0, 1, 2),
    "TokenReduceAot": (0, 1, 2),
    "TokenReduceWeightedAot": (0, 1, 2, 3),
}


def mark_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Make every node of the domain a plugin node, in place; the result is for TensorRT's parser alone.

    A node gets the plugin's type and attribute, `plugin_namespace` and `aot`, a name of its own, and only the
    inputs the plugin takes. The domain's function bodies go: without them the parser cannot fall back to one.

    Args:
        model: In the `custom` lowering; its weights are not touched.

    Returns:
        The names of the plugin nodes.

    Raises:
        UnsupportedModel: A node has an attribute value or lacks an input that the plugins need.
    """
    taken = {node.name for node in model.graph.node}
    marked = []
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        if node.op_type not in {"TokenMatch", "TokenSelect", "TokenReduce"}:
            raise UnsupportedModel(f"no TensorRT plugin for {node.op_type}")
        if not node.name or sum(other.name == node.name for other in model.graph.node) > 1:
            number = len(taken)
            while f"{node.op_type}_{number}" in taken:
                number += 1
            node.name = f"{node.op_type}_{number}"
            taken.add(node.name)
        _mark(node)
        marked.append(node.name)
    for function in [function for function in model.functions if function.domain == DOMAIN]:
        model.functions.remove(function)
    return tuple(marked)


def _mark(node: onnx.NodeProto) -> None:
    import onnx.helper

    attributes: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    texts = {name: value.decode() for name, value in attributes.items() if isinstance(value, bytes)}
    plugin, values = _plugin_of(node, attributes, texts)
    inputs = [node.input[i] if i < len(node.input) else "" for i in _INPUTS[plugin]]
    if "" in inputs:
        raise UnsupportedModel(f"node {node.name} lacks the input {BY_NAME[plugin].inputs[inputs.index('')]}")
    outputs = list(node.output) + [""] * (len(BY_NAME[plugin].outputs) - len(node.output))
    node.op_type = plugin
    del node.input[:], node.output[:], node.attribute[:]
    node.input.extend(inputs)
    # an engine's node computes all its outputs: the unused ones get names too
    node.output.extend(name or f"{node.name}_{BY_NAME[plugin].outputs[i]}" for i, name in enumerate(outputs))
    described: dict[str, Any] = {SETTINGS: [values[name] for name in BY_NAME[plugin].settings]}
    described |= {"plugin_namespace": NAMESPACE, "plugin_version": VERSION, "aot": 1}
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in described.items())


def _plugin_of(node: onnx.NodeProto, attributes: dict[str, Any], texts: dict[str, str]) -> tuple[str, dict[str, int]]:
    if node.op_type == "TokenReduce":
        weighted = len(node.input) > 3 and bool(node.input[3])
        mode = _position(node, "mode", texts.get("mode", "wmean"), MODES)
        return ("TokenReduceWeightedAot" if weighted else "TokenReduceAot"), {"mode": mode}
    eps = struct.unpack("<i", struct.pack("<f", float(attributes.get("metric_eps", 0.0))))[0]
    values: dict[str, int] = {
        "num_prefix": int(attributes.get("num_prefix", 1)),
        "metric_eps_bits": int(eps),
        "deterministic": int(attributes.get("deterministic", 1) != 0),
    }
    if node.op_type == "TokenMatch":
        values["unsorted"] = _position(node, "order", texts.get("order", "tome"), MATCH_ORDERS)
        return "TokenMatchAot", values
    values["by_index"] = _position(node, "order", texts.get("order", "score"), SELECT_ORDERS)
    leftovers = tuple(_SELECT_BY_LEFTOVER)
    leftover = leftovers[_position(node, "leftover", texts.get("leftover", "drop"), leftovers)]
    return _SELECT_BY_LEFTOVER[leftover], values


def _position(node: onnx.NodeProto, name: str, value: str, choices: tuple[str, ...]) -> int:
    if value not in choices:
        raise UnsupportedModel(f"{node.op_type} with {name} '{value}' has no TensorRT plugin")
    return choices.index(value)


def require_plugin_layers(network: Any, marked: Iterable[str]) -> None:
    """Check after the parser that every marked node became a plugin layer.

    Args:
        network: The `tensorrt.INetworkDefinition` the model was parsed into.
        marked: What `mark_nodes` returned.

    Raises:
        CheckFailed: A node is missing, or became something else.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = {layer.name for layer in layers if layer.type.name == "PLUGIN_V3"}
    # the parser appends _<number> to a name that is taken
    found |= {re.sub(r"_\d+$", "", name) for name in found}
    wanted = list(marked)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise CheckFailed(
            f"{len(missing)} of {len(wanted)} token nodes did not become plugin layers, the first is {missing[0]}",
            remedy="Register the plugins before parsing",
        )
