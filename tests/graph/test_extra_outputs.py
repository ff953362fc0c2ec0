import onnx_ir as ir
import pytest

from tests.tensorrt.conftest import Exported
from tmdeploy.errors import UsageError
from tmdeploy.graph.extra_outputs import ExtraOutputs
from tmdeploy.graph.onnx_file import read_onnx


def test_plans_and_the_last_size(exported: Exported):
    proto, metadata = read_onnx(exported("tome"))
    assert metadata is not None
    model, change = ExtraOutputs(metadata.steps, ("plan", "size"))(ir.serde.deserialize_model(proto))
    assert str(change) == "extra-outputs: tensors of steps are outputs (outputs: 5)"
    names = ["logits", "block0/map", "block0/index", "block1/map", "block1/index", "size"]
    assert [value.name for value in model.graph.outputs] == names
    assert str(ExtraOutputs(metadata.steps, ("features",))(model)[1]) == "extra-outputs: nothing to do"


def test_outputs_that_a_model_does_not_have(exported: Exported):
    proto, metadata = read_onnx(exported("topk"))
    assert metadata is not None
    model = ir.serde.deserialize_model(proto)
    with pytest.raises(UsageError, match="the method keeps no sizes. Leave out --extra-output size"):
        ExtraOutputs(metadata.steps, ("size",))(model)
    with pytest.raises(UsageError, match="no reduction step, so no plan or size"):
        ExtraOutputs((), ("plan",))(model)
