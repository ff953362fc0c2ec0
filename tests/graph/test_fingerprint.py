import onnx

from tests.tensorrt.conftest import Exported
from tmdeploy.graph.fingerprint import graph_sha256


def test_a_fingerprint_is_of_the_graph_not_of_its_weights(exported: Exported):
    model = onnx.load(exported("tome"))
    before = graph_sha256(model)
    model.metadata_props.add(key="k", value="v")
    weight = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    assert graph_sha256(model) == before
    count = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    entry = next(t for t in changed.graph.initializer if t.name == count.name)
    entry.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(count) + 1, count.name))
    assert graph_sha256(changed) != before
    model.graph.node[3].name = "another"
    assert graph_sha256(model) != before
