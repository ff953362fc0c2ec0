import onnx_ir as ir
import pytest

from tests.tensorrt.conftest import Exported
from tmdeploy.graph.name_steps import NameSteps
from tmdeploy.graph.onnx_file import read_onnx


@pytest.mark.parametrize("method", ["tome", "evit", "mstm", "topk"])
def test_tensors_are_found_under_whatever_names(method: str, exported: Exported):
    proto, metadata = read_onnx(exported(method))
    assert metadata is not None
    model = ir.serde.deserialize_model(proto)
    for number, value in enumerate(value for node in model.graph for value in node.outputs):
        if value.name != "logits":
            value.name = f"v{number}"
    recipe, prefix = metadata.card.reduction, metadata.steps[0].num_prefix
    model, named = NameSteps(recipe.spec, recipe.steps(metadata.steps[0].tokens_in, prefix), prefix)(model)
    assert named.records == metadata.steps
    assert str(named) == "name-steps: tensors got the names of their steps (steps: 2)"
    onnx_names = {value.name for node in model.graph for value in node.outputs}
    assert {name for step in metadata.steps for name in step.tensors} <= onnx_names
