"""Files that several commands are tried on."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose Loop never ends."""
    helper, boolean, integer = onnx.helper, onnx.TensorProto.BOOL, onnx.TensorProto.INT64
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Add", ["state", "state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", integer, []),
            helper.make_tensor_value_info("going", boolean, []),
            helper.make_tensor_value_info("state", integer, []),
        ],
        [helper.make_tensor_value_info("still", boolean, []), helper.make_tensor_value_info("next", integer, [])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "zero"], ["end"], body=body)],
        "endless",
        [],
        [helper.make_tensor_value_info("end", integer, [])],
        [helper.make_tensor("true", boolean, [], [True]), helper.make_tensor("zero", integer, [], [0])],
    )
    path = tmp_path_factory.mktemp("endless") / "endless.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def endless_classifier(endless: Path) -> Path:
    """The same, behind an image input and with one row of scores an image."""
    helper, kinds = onnx.helper, onnx.TensorProto
    model = onnx.load(endless)
    model.graph.input.append(helper.make_tensor_value_info("images", kinds.FLOAT, ["batch", 3, 8, 8]))
    model.graph.node.append(helper.make_node("ReduceMax", ["images"], ["seen"], keepdims=0, axes=None))
    model.graph.node.append(helper.make_node("Cast", ["seen"], ["first"], to=kinds.INT64))
    model.graph.node[0].input[2] = "first"  # nothing that could be computed in advance
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[1:], nodes[0]])
    path = endless.with_name("classifier.onnx")
    onnx.save(model, path)
    return path
