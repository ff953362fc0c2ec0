import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.graph.models import product
from tmdeploy.graph.insert_int8 import InsertInt8
from tmdeploy.graph.to_float8 import ToFloat8

WEIGHT = np.array([[1.0, -3.0], [0.5, 448.0]], np.float32)


def test_pairs_reach_from_the_largest_magnitude_to_448():
    source = product(WEIGHT)
    quantised, _ = InsertInt8(["m"], {"x": 2.0})(source)
    model, change = ToFloat8(source)(quantised)
    assert str(change) == "to-float8: int8 became float8 (pairs: 2)"
    onnx.checker.check_model(model, full_check=True)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert {tensors[node.input[2]].data_type for node in pairs} == {TensorProto.FLOAT8E4M3FN}
    stored = {node.input[0]: numpy_helper.to_array(tensors[node.input[1]]) for node in pairs}
    weight = stored.pop("w_quantized")
    np.testing.assert_allclose(weight, np.float32([1 / 448, 1.0]))  # one scale an output channel
    (activation,) = stored.values()
    np.testing.assert_allclose(activation, np.float32(2 / 448), rtol=1e-6)
    rounded = numpy_helper.to_array(tensors["w_quantized"]).astype(np.float32)
    np.testing.assert_array_equal(rounded, [[448, -3], [224, 448]])
