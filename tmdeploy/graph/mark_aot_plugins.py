"""Nodes that TensorRT's parser gives to ahead-of-time plugins (`tensorrt.plugin`)."""

from __future__ import annotations

from typing import Any

import onnx

from tmdeploy.errors import UnsupportedModel
from tmdeploy.graph.base import Change
from tmdeploy.graph.name_nodes import NameNodes
from tmdeploy.ops.spec import DOMAIN, OPS
from tmdeploy.tensorrt.plugin.operators import BY_INPUTS, NAMESPACE, SETTINGS, VERSION, settings_of


class MarkAotPlugins:
    """Make every node of the domain a plugin node, for TensorRT's parser alone.

    A node gets the plugin's type and attribute, `plugin_namespace` and `aot`, a name of its own, and only the
    inputs the plugin takes. The domain's function bodies go: without them the parser cannot fall back to one.
    """

    name = "mark-aot-plugins"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model, of one in the `custom` lowering.

        Raises:
            UnsupportedModel: A node has an attribute value or lacks an input that the plugins need.
        """
        marked = onnx.ModelProto()
        marked.CopyFrom(model)  # half of the nodes may be marked when one is refused
        marked, _ = NameNodes()(marked)
        nodes = [node for node in marked.graph.node if node.domain == DOMAIN]
        for node in nodes:
            if node.op_type not in OPS:
                raise UnsupportedModel(f"no TensorRT plugin for {node.op_type}")
            _mark(node)
        for function in [function for function in marked.functions if function.domain == DOMAIN]:
            marked.functions.remove(function)
        return marked, Change(self.name, "nodes are ahead-of-time plugins", {"nodes": len(nodes)})


def _mark(node: onnx.NodeProto) -> None:
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
