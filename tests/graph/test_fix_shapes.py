import numpy as np
import pytest

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tmdeploy.graph.fix_shapes import FixShapes
from tmdeploy.graph.onnx_file import read_onnx


def test_the_batch_can_be_fixed(exported: Exported):
    model, change = FixShapes({"images": (3,)})(read_onnx(exported("tome"))[0])
    assert str(change) == "fix-shapes: dimensions of inputs became numbers (dimensions: 1)"
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert (batch.dim_value, batch.dim_param) == (3, "")
    images = np.zeros((3, 3, 64, 64), np.float32)
    assert outputs(model, images=images)[0].shape == (3, 10)
    with pytest.raises(Exception, match="(?i)invalid dimensions"):
        outputs(model, images=images[:2])
    assert str(FixShapes({"images": (3,)})(model)[1]) == "fix-shapes: nothing to do"
