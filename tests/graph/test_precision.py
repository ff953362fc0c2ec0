from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.quantize.pictures import quantized
from tests.tensorrt.conftest import Exported
from tests.vits import tiny_images
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.graph.expand_ops import ExpandOps
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.graph.precision import GROUPS, ConvertPrecision

METHODS = ("none", "tome", "evit", "mstm", "topk")
IMAGES = tiny_images(6).numpy()


def _file(exported: Exported, name: str) -> Path:
    return exported("tome", lowering="portable") if name == "portable" else exported(name)


def _converted(path: Path, precision: str = "fp16", keep: tuple[str, ...] = GROUPS):
    model, metadata = read_onnx(path)
    steps = () if metadata is None else metadata.steps
    changed, done = ConvertPrecision(precision, keep, steps, str(path))(model)
    return changed, metadata, done


def _run(model: onnx.ModelProto, names: Iterable[str]) -> list[np.ndarray]:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    present = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(names), {"images": IMAGES})


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(ExpandOps()(model)[0], check_type=True, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types.update({value.name: value.type.tensor_type.elem_type for value in inferred.graph.output})
    types.update({tensor.name: tensor.data_type for tensor in inferred.graph.initializer})
    return types


@pytest.mark.parametrize("method", [*METHODS, "portable"])
def test_fp16_is_close_and_keeps_inputs_and_outputs(method: str, exported: Exported):
    original, _ = read_onnx(_file(exported, method))
    changed, _, done = _converted(_file(exported, method))
    onnx.checker.check_model(changed, full_check=True)
    assert str(done).startswith("convert-precision: nodes compute in fp16 (narrowed: ")
    assert done.counts["narrowed"] > 50
    assert done.counts["kept"] > 0
    expected, got = (_run(model, ["logits"])[0] for model in (original, changed))
    assert got.dtype == np.float32
    error = np.abs(got - expected).max(axis=1) / np.abs(expected).max()
    # half of the images: random weights on noise have near-ties, and a flipped one is another computation
    assert 0 < np.median(error) < 0.005


def _nodes(model: onnx.ModelProto, *ops: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ops]


@pytest.mark.parametrize("method", ["tome", "mstm", "portable"])
@pytest.mark.parametrize(("precision", "low"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_planners_sizes_softmax_and_layernorm_stay_fp32(method: str, precision: str, low: int, exported: Exported):
    changed, metadata, _ = _converted(_file(exported, method), precision)
    assert metadata is not None
    if precision == "bf16":  # ONNX's own type rules know bf16 for all of these from opset 22 on
        next(entry for entry in changed.opset_import if not entry.domain).version = 22
    types = _types(changed)
    for node in _nodes(changed, "Softmax", "LayerNormalization"):
        assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT
    for step in metadata.steps:
        assert types[step.signal] == TensorProto.FLOAT
        if step.size_out is not None:
            assert types[step.size_out] == TensorProto.FLOAT
    matrix = [types[node.output[0]] for node in _nodes(changed, "MatMul", "Gemm", "Conv") if node.output[0] in types]
    assert matrix.count(low) >= 12
    assert not any(kind == TensorProto.FLOAT for name, kind in types.items() if name.startswith("module.blocks.0.mlp"))


def test_the_set_can_be_narrowed_and_widened(exported: Exported):
    default, _, counted = _converted(exported("tome"))
    narrow, _, fewer = _converted(exported("tome"), keep=("planner", "size"))
    assert fewer.counts["kept"] < counted.counts["kept"]
    types = _types(narrow)
    assert all(types[node.output[0]] == TensorProto.FLOAT16 for node in _nodes(narrow, "Softmax"))
    wide, _, more = _converted(exported("tome"), keep=(*GROUPS, "Gelu", "node_linear_1*"))
    assert more.counts["kept"] > counted.counts["kept"]
    types = _types(wide)
    assert all(types[node.output[0]] == TensorProto.FLOAT for node in _nodes(wide, "Gelu"))
    assert all(_types(default)[node.output[0]] == TensorProto.FLOAT16 for node in _nodes(default, "Gelu"))
    with pytest.raises(UsageError, match="no node fits 'Gulu'"):
        _converted(exported("tome"), keep=("Gulu",))


def test_weights_beyond_fp16_are_clipped_and_named():
    weight = numpy_helper.from_array(np.array([[1e6, 1.0], [-np.inf, -7e4]], np.float32), "w")
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"], name="m")], "g", [images], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    changed, done = ConvertPrecision("fp16", (), (), "f.onnx")(model)
    assert done.notes == ("weights beyond fp16 were clipped to 65504: w",)
    clipped = next(tensor for tensor in changed.graph.initializer if tensor.name == "w_float16")
    np.testing.assert_array_equal(numpy_helper.to_array(clipped), [[65504, 1], [-np.inf, -65504]])
    assert ConvertPrecision("bf16", (), (), "f.onnx")(model)[1].notes == ()


def test_control_flow_is_refused():
    truth = numpy_helper.from_array(np.array(True), "c")
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])],
    )
    node = helper.make_node("If", ["c"], ["y"], name="either", then_branch=branch, else_branch=branch)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [truth])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ArtifactError, match=r"'either' \(If\) is control flow, which cannot be converted"):
        ConvertPrecision("fp16", (), (), "f.onnx")(model)


def test_metadata_still_fits_the_graph(exported: Exported, tmp_path: Path):
    changed, metadata, _ = _converted(exported("mstm"))
    path = tmp_path / "again.onnx"
    onnx.save(changed, path)
    again = read_onnx(path)[1]
    assert isinstance(again, ArtifactMetadata)
    assert again == metadata


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_pairs_take_the_type_of_what_they_stand_between(precision: str, exported: Exported, tmp_path: Path):
    """No Cast between a DequantizeLinear and its product: TensorRT would not see the pattern."""
    path, report = quantized(exported("tome"), tmp_path)
    changed, _, _ = _converted(path, precision)
    onnx.checker.check_model(changed, full_check=precision == "fp16")  # Conv has no bf16 before opset 22
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*changed.graph.value_info, *changed.graph.output)
    }
    types.update({tensor.name: tensor.data_type for tensor in changed.graph.initializer})
    makers = {output: node for node in changed.graph.node for output in node.output}
    low = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
    for node in changed.graph.node:
        if node.name in report.quantized:
            assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert {types[name] for name in (*node.input, *node.output)} == {low}
        if node.op_type == "QuantizeLinear":
            assert types[node.input[1]] == types.get(node.input[0], TensorProto.FLOAT)
            assert node.input[0] not in makers or makers[node.input[0]].op_type != "Cast"  # LayerNorm stays fp32
    if precision == "fp16":
        original, _ = read_onnx(path)
        expected, got = (_run(model, ["logits"])[0] for model in (original, changed))
        assert 0 < np.median(np.abs(got - expected).max(axis=1)) < 0.02 * np.abs(expected).max()


def test_a_scale_that_fp16_cannot_hold_stays(exported: Exported, tmp_path: Path):
    path, report = quantized(exported("none"), tmp_path)
    proto = onnx.load(path)
    pairs = {node.output[0]: node for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    product = next(node for node in proto.graph.node if node.name in report.quantized and node.op_type == "MatMul")
    (scale,) = [t for t in proto.graph.initializer if t.name == pairs[product.input[1]].input[1]]
    numbers = numpy_helper.to_array(scale).copy()
    numbers[0] = 1e-9
    scale.CopyFrom(numpy_helper.from_array(numbers, scale.name))
    onnx.save(proto, tmp_path / "tiny_scale.onnx")
    changed, _, _ = _converted(tmp_path / "tiny_scale.onnx")
    kept = numpy_helper.to_array(next(t for t in changed.graph.initializer if t.name == scale.name))
    assert (kept.dtype, kept[0]) == (np.float32, np.float32(1e-9))
