import numpy as np
import pytest

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.graph.step_outputs import StepOutputs


@pytest.mark.parametrize(("method", "precision"), [("tome", "fp32"), ("tome", "fp16"), ("mstm", "fp16")])
def test_every_tensor_of_every_step_is_put_out_once(method: str, precision: str, exported: Exported):
    model, metadata = read_onnx(exported(method, precision=precision))
    assert metadata is not None
    traced, change = StepOutputs(metadata)(model)
    names = [value.name for value in traced.graph.output]
    wanted = {name for step in metadata.steps for name in step.tensors}
    assert names[0] == "logits"
    assert sorted(names[1:]) == sorted(wanted)
    assert change.counts == {"outputs": len(wanted)}
    values = dict(zip(names, outputs(traced, images=tiny_images(2).numpy()), strict=True))  # the types fit, or it fails
    first = metadata.steps[0]
    assert (values[first.map].dtype, values[first.map].shape) == (np.int32, (2, first.tokens_in))
    assert values[first.x_out].dtype == (np.float32 if precision == "fp32" else np.float16)
    assert str(StepOutputs(metadata)(traced)[1]) == "step-outputs: nothing to do"
