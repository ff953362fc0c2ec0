import numpy as np
import pytest

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.graph.require_input import RequireInput

IMAGES = tiny_images(2).numpy()


def test_a_default_is_taken_away(exported: Exported):
    given, _ = read_onnx(exported("tome"))
    (expected,) = outputs(given, images=IMAGES)
    model, change = RequireInput("r")(given)
    assert str(change) == "require-input: the input 'r' has no default any more (defaults: 1)"
    assert [value.name for value in model.graph.input] == ["images", "r"]
    np.testing.assert_array_equal(outputs(model, images=IMAGES, r=np.array([8, 8]))[0], expected)
    with pytest.raises(Exception, match="Required inputs"):
        outputs(model, images=IMAGES)
    assert str(RequireInput("r")(model)[1]) == "require-input: nothing to do"
