import numpy as np

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.graph.inline_bodies import InlineBodies
from tmdeploy.graph.onnx_file import read_onnx

IMAGES = tiny_images(2).numpy()


def test_only_standard_ops_remain(exported: Exported):
    given, _ = read_onnx(exported("evit"))
    model, change = InlineBodies()(given)
    assert str(change) == "inline-bodies: nodes became their function bodies (nodes: 4)"
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.functions
    expected = outputs(given, images=IMAGES)[0]
    np.testing.assert_allclose(outputs(model, images=IMAGES)[0], expected, atol=1e-5)
