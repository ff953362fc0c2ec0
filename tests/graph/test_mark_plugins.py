import re

import onnx

from tests.tensorrt.conftest import Exported
from tmdeploy.graph.mark_plugins import MarkPlugins
from tmdeploy.graph.onnx_file import read_onnx


def test_plugins_are_asked_for_by_namespace(exported: Exported):
    model, change = MarkPlugins()(read_onnx(exported("tome"))[0])
    assert str(change) == "mark-plugins: nodes are for the plugin library (nodes: 4)"
    marked = [node for node in model.graph.node if any(a.name == "plugin_namespace" for a in node.attribute)]
    assert [node.op_type for node in marked] == ["TokenMatch", "TokenReduce"] * 2
    assert all(re.match(r"block[01]/", node.name) for node in marked)
    assert {onnx.helper.get_node_attr_value(node, "plugin_namespace") for node in marked} == {b"tmdeploy"}
