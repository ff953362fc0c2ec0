import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from tests.graph.models import made, value
from tests.graph.running import outputs
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.graph.fold_preprocessing import FoldPreprocessing


def test_pixels_are_normalised_in_the_graph():
    spec = Preprocessing(image_size=(4, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    plain = made(
        [helper.make_node("Neg", ["images"], ["y"])], [value("images", "n", 3, 4, 6)], [value("y", "n", 3, 4, 6)]
    )
    model, change = FoldPreprocessing(spec)(ir.serde.deserialize_model(plain))
    assert str(change) == "fold-preprocessing: the input takes pixels, normalised in the graph (nodes: 4)"
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    expected = -((pixels / 255 - spec.mean) / spec.std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(outputs(proto, images=pixels)[0], expected, atol=1e-5)
