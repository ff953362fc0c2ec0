import onnx
import onnx_ir as ir

from tests.tensorrt.conftest import Exported
from tmdeploy.graph.insert_int8 import InsertInt8
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.quantize.choice import choose


def test_whoever_else_reads_a_tensor_reads_the_original(exported: Exported):
    """A planner that shares a quantised layer's input, and a float layer that shares its weight."""
    model, metadata = read_onnx(exported("topk"))
    assert metadata is not None
    choice = choose(model, metadata.steps, ("attention",))
    shared = next(node for node in model.graph.node if node.name in choice.quantized and node.op_type == "MatMul")
    spies = [
        onnx.helper.make_node("Identity", [shared.input[0]], ["spy_x"], name="spy_x"),
        onnx.helper.make_node("MatMul", [shared.input[0], shared.input[1]], ["spy_y"], name="spy_y"),
    ]
    position = list(model.graph.node).index(shared) + 1
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:position], *spies, *nodes[position:]])
    done, change = InsertInt8(choice.quantized, dict.fromkeys(choice.activations, 4.0))(model)
    assert str(change) == f"insert-int8: nodes read pairs of int8 (nodes: 10, activations: {len(choice.activations)})"
    found = {node.name: node for node in ir.serde.deserialize_model(done).graph}
    assert [value.name for value in found["spy_x"].inputs] == [shared.input[0]]
    assert [value.name for value in found["spy_y"].inputs] == [shared.input[0], shared.input[1]]
    producers = [value.producer() for value in found[shared.name].inputs]
    assert {node.op_type for node in producers if node is not None} == {"DequantizeLinear"}
