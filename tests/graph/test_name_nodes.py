from onnx import helper

from tests.graph.models import made, value
from tmdeploy.graph.name_nodes import NameNodes


def test_nodes_get_names_of_their_own():
    chain = [("x", "a", "same"), ("a", "b", ""), ("b", "c", "same"), ("c", "y", "last")]
    nodes = [helper.make_node("Neg", [given], [out], name=name) for given, out, name in chain]
    model, change = NameNodes()(made(nodes, [value("x", 2)], [value("y", 2)]))
    assert [node.name for node in model.graph.node] == ["same", "b", "c", "last"]
    assert str(change) == "name-nodes: nodes got names of their own (nodes: 2)"
    assert str(NameNodes()(model)[1]) == "name-nodes: nothing to do"
