"""Small graphs for the tests of passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def made(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **constants: NDArray[np.generic],
) -> onnx.ModelProto:
    """A model of opset 20 that may use the op set."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("tmdeploy", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def product(weight: NDArray[np.float32]) -> onnx.ModelProto:
    """y [n, ...] = x [n, ...] w, in a node called m."""
    rows, columns = weight.shape
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    return made([node], [value("x", "n", rows)], [value("y", "n", columns)], w=weight)
