"""Turn the token nodes of an ONNX model into plugin nodes for TensorRT's parser, and check that it took them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tmdeploy.errors import CheckFailed, UnsupportedModel
from tmdeploy.ops.spec import DOMAIN, OPS
from tmdeploy.tensorrt.plugin.operators import BY_INPUTS, NAMESPACE, SETTINGS, VERSION, settings_of

if TYPE_CHECKING:
    import onnx


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
        if node.op_type not in OPS:
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

    spec = OPS[node.op_type]
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    try:
        given = spec.attributes.read({k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise UnsupportedModel(f"node {node.name} has no TensorRT plugin: {error}") from error
    present = dict(zip(spec.input_names, node.input, strict=False))
    # an input that is for an attribute's value has to be there; another optional one may be
    taken = [t.name for t in spec.inputs_for(given.values()) if present.get(t.name) or not t.optional or t.needed_by]
    missing = [name for name in taken if not present.get(name)]
    if missing:
        raise UnsupportedModel(f"node {node.name} lacks the input {missing[0]}")
    plugin = BY_INPUTS[node.op_type, tuple(taken)]
    outputs = list(node.output) + [""] * (len(plugin.outputs) - len(node.output))
    node.op_type = plugin.name
    del node.input[:], node.output[:], node.attribute[:]
    node.input.extend(present[name] for name in taken)
    # an engine's node computes all its outputs: the unused ones get names too
    node.output.extend(name or f"{node.name}_{plugin.outputs[i]}" for i, name in enumerate(outputs))
    described: dict[str, Any] = {SETTINGS: settings_of(given)}
    described |= {"plugin_namespace": NAMESPACE, "plugin_version": VERSION, "aot": 1}
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in described.items())


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
