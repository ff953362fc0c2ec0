import numpy as np
import onnx
import pytest

from tests.graph.running import outputs
from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.graph.expand_ops import ExpandOps
from tmdeploy.graph.name_nodes import NameNodes
from tmdeploy.graph.narrow_doubles import NarrowDoubles
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.methods import methods

METHODS = [info.name for info in methods()]
IMAGES = tiny_images(3).numpy()


def _run(model: onnx.ModelProto) -> np.ndarray:
    return outputs(model, images=IMAGES)[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_lowered_graph_computes_the_same(method: str, exported: Exported):
    model, metadata = read_onnx(exported(method))
    expected = _run(model)
    calls = sum(node.domain == "tmdeploy" for node in model.graph.node)
    flat, change = ExpandOps()(model)
    assert change.counts["nodes"] == calls
    assert {node.domain for node in flat.graph.node} == {""}
    assert not flat.functions
    np.testing.assert_allclose(_run(flat), expected, atol=1e-5)
    flat, narrowed = NarrowDoubles()(flat)
    assert any(narrowed.counts.values()) == (method in {"tome", "mstm"})  # those that measure similarities
    flat, _ = NameNodes()(flat)
    assert len({node.name for node in flat.graph.node}) == len(flat.graph.node)
    onnx.checker.check_model(flat)
    np.testing.assert_allclose(_run(flat), expected, atol=1e-4)
    assert metadata is not None
    for step in metadata.steps:  # names that tell where a kernel came from
        count = sum(node.name.startswith(f"block{step.block}/{step.op}/") for node in flat.graph.node)
        assert count > 10


def test_a_prefix_that_no_model_has_is_not_written_out(exported: Exported):
    """A body lists the prefix slots, so 2**40 of them would take all memory; the file's own body is taken instead."""
    model, _ = read_onnx(exported("tome"))
    wanted = len(ExpandOps()(model)[0].graph.node)
    node = next(node for node in model.graph.node if node.op_type == "TokenMatch")
    next(entry for entry in node.attribute if entry.name == "num_prefix").i = 2**40
    assert abs(len(ExpandOps()(model)[0].graph.node) - wanted) < 50
