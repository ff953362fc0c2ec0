import numpy as np
import onnx
import pytest

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tmdeploy.graph.cut_step import CutStep
from tmdeploy.graph.onnx_file import read_onnx


@pytest.mark.parametrize("runtime", [True, False])
def test_a_step_runs_by_itself_on_other_counts(runtime: bool, exported: Exported):
    given, metadata = read_onnx(exported("tome", runtime_schedule=runtime))
    assert metadata is not None
    step = metadata.steps[1]
    cut = CutStep(step, "r" if runtime else None)
    part, change = cut(onnx.shape_inference.infer_shapes(given))
    assert change.summary == "the step of block 1 by itself"
    assert change.counts == {"nodes": len(part.graph.node)}
    assert 0 < len(part.graph.node) < len(given.graph.node) / 2
    assert (
        [value.name for value in part.graph.output] == cut.outputs == [step.map, step.index, step.x_out, step.size_out]
    )
    tokens = step.tokens_in
    rng = np.random.default_rng(0)
    made = {
        step.signal: rng.standard_normal((5, tokens, 16), dtype=np.float32),
        step.x_in: rng.standard_normal((5, tokens, 48), dtype=np.float32),
        step.size_in: np.ones((5, tokens), np.float32),
        "images": np.zeros((5, 1, 1, 1), np.float32),
        "r": np.array([8, 8]),
    }
    plan, _, x, size = outputs(part, **{value.name: made[value.name] for value in part.graph.input})
    assert (plan.shape, x.shape) == ((5, tokens), (5, step.tokens_out, 48))
    assert (size.sum(axis=1) == tokens).all()
    assert {"images", step.signal, step.x_in} <= {value.name for value in part.graph.input}
