import numpy as np

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.graph.fix_input import FixInput
from tmdeploy.graph.onnx_file import read_onnx

IMAGES = tiny_images(2).numpy()


def test_an_input_becomes_its_default_or_another_constant(exported: Exported):
    path = exported("tome")
    model, change = FixInput("r")(read_onnx(path)[0])
    assert str(change) == "fix-input: the input 'r' became a constant (inputs: 1)"
    assert [value.name for value in model.graph.input] == ["images"]
    (default,) = outputs(read_onnx(path)[0], images=IMAGES)
    np.testing.assert_array_equal(outputs(model, images=IMAGES)[0], default)
    assert str(FixInput("r")(model)[1]) == "fix-input: nothing to do"
    other, _ = FixInput("r", np.array([3, 1]))(read_onnx(path)[0])
    (fewer,) = outputs(read_onnx(path)[0], images=IMAGES, r=np.array([3, 1]))
    np.testing.assert_array_equal(outputs(other, images=IMAGES)[0], fewer)
    assert np.abs(fewer - default).max() > 1e-3
