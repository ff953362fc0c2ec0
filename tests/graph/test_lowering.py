import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.graph.lowering import (
    inline_ops,
    mark_plugins,
    name_nodes,
    narrow_doubles,
    set_schedule_input,
    set_static_batch,
)
from tmdeploy.methods import methods
from tmdeploy.tensorrt.build.source import load_source

METHODS = [info.name for info in methods()]
IMAGES = tiny_images(3).numpy()


def _run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": IMAGES, **feeds})[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_lowered_graph_computes_the_same(method: str, exported: Exported):
    model, metadata = load_source(exported(method))
    expected = _run(model)
    flat = inline_ops(model)
    assert {node.domain for node in flat.graph.node} == {""}
    assert not flat.functions
    np.testing.assert_allclose(_run(flat), expected, atol=1e-5)
    assert bool(narrow_doubles(flat)) == (method in {"tome", "mstm"})  # those that measure similarities
    assert narrow_doubles(flat) == 0
    name_nodes(flat)
    assert len({node.name for node in flat.graph.node}) == len(flat.graph.node)
    onnx.checker.check_model(flat)
    np.testing.assert_allclose(_run(flat), expected, atol=1e-4)
    assert metadata is not None
    for step in metadata.steps:  # names that tell where a kernel came from
        count = sum(node.name.startswith(f"block{step.block}/{step.op}/") for node in flat.graph.node)
        assert count > 10


def test_the_schedule_becomes_an_input_or_a_constant(exported: Exported):
    model, _ = load_source(exported("tome"))
    set_schedule_input(model, "r", runtime=True)
    assert [value.name for value in model.graph.input] == ["images", "r"]
    assert "r" not in {tensor.name for tensor in model.graph.initializer}
    merged = _run(model, r=np.array([8, 8]))
    with pytest.raises(Exception, match="Required inputs"):
        _run(model)
    fixed, _ = load_source(exported("tome"))
    set_schedule_input(fixed, "r", runtime=False)
    assert [value.name for value in fixed.graph.input] == ["images"]
    np.testing.assert_array_equal(_run(fixed), merged)


def test_the_batch_can_be_fixed(exported: Exported):
    model, _ = load_source(exported("tome"))
    set_static_batch(model, "images", 3)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    _run(model)
    set_static_batch(model, "images", 2)
    with pytest.raises(Exception, match="(?i)invalid dimensions"):
        _run(model)


def test_plugins_are_asked_for_by_namespace(exported: Exported):
    model, _ = load_source(exported("tome"))
    mark_plugins(model)
    marked = [node for node in model.graph.node if any(a.name == "plugin_namespace" for a in node.attribute)]
    assert [node.op_type for node in marked] == ["TokenMatch", "TokenReduce"] * 2
    assert all(re.match(r"block[01]/", node.name) for node in marked)
    assert _run(model).shape == (3, 10)  # ONNX Runtime does not mind


def test_no_float64_is_left(exported: Exported):
    flat = inline_ops(load_source(exported("tome"))[0])
    narrow_doubles(flat)
    inferred = onnx.shape_inference.infer_shapes(flat, check_type=True, strict_mode=True)
    kinds = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert TensorProto.FLOAT in kinds
    assert TensorProto.DOUBLE not in kinds


def test_a_prefix_that_no_model_has_is_not_written_out(exported: Exported):
    """A body lists the prefix slots, so 2**40 of them would take all memory; the file's own body is taken instead."""
    model, _ = load_source(exported("tome"))
    wanted = len(inline_ops(model).graph.node)
    node = next(node for node in model.graph.node if node.op_type == "TokenMatch")
    next(entry for entry in node.attribute if entry.name == "num_prefix").i = 2**40
    assert abs(len(inline_ops(model).graph.node) - wanted) < 50
