import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graph.models import made, value
from tests.tensorrt.conftest import Exported
from tmdeploy.graph.expand_ops import ExpandOps
from tmdeploy.graph.narrow_doubles import NarrowDoubles
from tmdeploy.graph.onnx_file import read_onnx


def test_tensors_and_casts():
    inner = helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float64([0.5])))
    wide = helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE)
    scaled = helper.make_node("Mul", ["wide", "half"], ["scaled"])
    moved = helper.make_node("Add", ["scaled", "one"], ["moved"])
    back = helper.make_node("Cast", ["moved"], ["y"], to=TensorProto.FLOAT)
    nodes = [inner, wide, scaled, moved, back]
    model, change = NarrowDoubles()(made(nodes, [value("x", 1)], [value("y", 1)], one=np.float64([1.0])))
    assert str(change) == "narrow-doubles: float64 became float32 (tensors: 2, casts: 1)"
    assert change.notes == ("TensorRT has no float64: planners accumulate in fp32",)
    onnx.checker.check_model(model, full_check=True)
    again = NarrowDoubles()(model)[1]
    assert (str(again), again.notes) == ("narrow-doubles: nothing to do", ())


def test_no_float64_is_left_of_a_planner(exported: Exported):
    model, _ = NarrowDoubles()(ExpandOps()(read_onnx(exported("tome"))[0])[0])
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    kinds = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert TensorProto.FLOAT in kinds
    assert TensorProto.DOUBLE not in kinds
