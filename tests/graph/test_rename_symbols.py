import onnx_ir as ir
from onnx import helper

from tests.graph.models import made, value
from tmdeploy.graph.rename_symbols import RenameSymbols


def test_symbols_are_renamed_wherever_they_stand():
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    model = ir.serde.deserialize_model(made(nodes, [value("x", "s77", 3, "s1")], [value("y", "s77", 3, "s1")]))
    model, change = RenameSymbols({"s77": "batch", "s9": "nowhere"})(model)
    assert str(change) == "rename-symbols: symbols got names that say what they count (dimensions: 2)"
    assert [str(shape) for shape in (model.graph.inputs[0].shape, model.graph.outputs[0].shape)] == ["[batch,3,s1]"] * 2
