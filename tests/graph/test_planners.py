import onnx_ir as ir
import pytest

from tests.tensorrt.conftest import Exported
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.graph.planners import deciding_nodes


@pytest.mark.parametrize("method", ["tome", "evit", "mstm", "topk"])
def test_what_decides_is_upstream_of_planners_alone(method: str, exported: Exported):
    proto, metadata = read_onnx(exported(method))
    assert metadata is not None
    graph = ir.serde.deserialize_model(proto).graph
    deciding = deciding_nodes(graph, metadata.steps)
    assert {node for node in graph if node.domain == "tmdeploy"} < deciding
    values = {value.name: value for node in graph for value in node.outputs}
    for step in metadata.steps:
        assert values[step.x_in].producer() not in deciding  # the tokens are the model's
        assert values[step.signal].producer() in deciding
    logits = next(node for node in graph if graph.outputs[0] in node.outputs)
    assert logits not in deciding
    for node in deciding:
        if node.domain == "":
            assert {user for value in node.outputs for user, _ in value.uses()} <= deciding
