import onnx
import pytest

from tests.tensorrt.conftest import Exported
from tmdeploy.errors import UsageError
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.quantize.choice import Choice, choose

DEPTH = 2  # of the exported models


def _choose(exported: Exported, method: str, *keep: str, **request: object) -> tuple[Choice, onnx.ModelProto]:
    model, metadata = read_onnx(exported(method, **request))
    assert metadata is not None
    return choose(model, metadata.steps, keep), model


@pytest.mark.parametrize(
    ("method", "lowering"),
    [(method, "custom") for method in ("none", "tome", "evit", "mstm", "topk")]
    + [("evit", "portable"), ("mstm", "portable")],
)
def test_the_same_layers_whatever_reduces(method: str, lowering: str, exported: Exported):
    choice, model = _choose(exported, method, "attention", lowering=lowering)
    # patch embedding, qkv, proj, fc1 and fc2 of each block, head
    assert len(choice.quantized) == 1 + 4 * DEPTH + 1
    assert [entry for _, entry in choice.kept] == ["attention"] * 2 * DEPTH
    products = {node.name for node in model.graph.node if node.op_type in {"MatMul", "Gemm", "Conv"}}
    named = {*choice.quantized, *(name for name, _ in choice.kept), *choice.planner}
    # what is left are one-hot products of inlined reductions, which are the planner's
    assert named == products
    assert bool(choice.planner) == (method != "none")


def test_groups(exported: Exported):
    everything, model = _choose(exported, "tome")
    nodes = {node.name: node for node in model.graph.node}
    for group, expected in (("patch-embed", 1), ("head", 1), ("attention", 2 * DEPTH), ("metric-source", DEPTH)):
        choice, _ = _choose(exported, "tome", group)
        assert len(choice.kept) == expected, group
        assert {*choice.quantized, *(name for name, _ in choice.kept)} == set(everything.quantized)
    (stem,) = [name for name, _ in _choose(exported, "tome", "patch-embed")[0].kept]
    assert nodes[stem].op_type == "Conv"
    ((head, entry),) = _choose(exported, "tome", "head")[0].kept
    assert (nodes[head].output[0], entry) == ("logits", "head")
    sources = [nodes[name] for name, _ in _choose(exported, "tome", "metric-source")[0].kept]
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert {weights[node.input[1]] for node in sources} == {(48, 144)}  # ToMe's metric is the keys: qkv


def test_scores_come_from_qkv(exported: Exported):
    kept = [entry for _, entry in _choose(exported, "evit", "metric-source")[0].kept]
    assert kept == ["metric-source"] * DEPTH
    both, _ = _choose(exported, "evit", "metric-source", "attention")
    assert [entry for _, entry in both.kept].count("metric-source") == DEPTH


def test_op_types_and_patterns(exported: Exported):
    choice, model = _choose(exported, "tome", "Gemm", "node_MatMul_*")
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert {kinds[name] for name, entry in choice.kept if entry == "Gemm"} == {"Gemm"}
    assert all(name.startswith("node_MatMul_") for name, entry in choice.kept if entry != "Gemm")
    with pytest.raises(UsageError, match=r"--keep-float: no node that could be quantised fits 'Softmax'"):
        _choose(exported, "tome", "Softmax")
    with pytest.raises(UsageError, match="--keep-float leaves nothing to quantise"):
        _choose(exported, "tome", "MatMul", "Gemm", "Conv")
