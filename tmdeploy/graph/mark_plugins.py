"""Nodes that TensorRT's parser gives to a C++ plugin library."""

from __future__ import annotations

import onnx

from tmdeploy.graph.base import Change
from tmdeploy.ops import DOMAIN

PLUGIN_NAMESPACE = "tmdeploy"


class MarkPlugins:
    """Send the ops of the domain to the plugin: with this attribute the parser prefers it to the function body."""

    name = "mark-plugins"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        marked = [node for node in model.graph.node if node.domain == DOMAIN]
        for node in marked:
            node.attribute.append(onnx.helper.make_attribute("plugin_namespace", PLUGIN_NAMESPACE))
        return model, Change(self.name, "nodes are for the plugin library", {"nodes": len(marked)})
