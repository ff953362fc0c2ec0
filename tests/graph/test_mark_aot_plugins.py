"""Nodes of the op set become plugin nodes; what no plugin can do is refused."""

from __future__ import annotations

import struct
from typing import Any

import onnx
import onnx.helper
import pytest

from tmdeploy.errors import UnsupportedModel
from tmdeploy.graph.mark_aot_plugins import MarkAotPlugins
from tmdeploy.ops import DOMAIN
from tmdeploy.tensorrt.plugin.operators import BY_NAME


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))


def step(op: str, inputs: list[str], outputs: list[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op, inputs, outputs, name=name, domain=DOMAIN, **attributes)


def settings(marked: onnx.NodeProto) -> dict[str, int]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in marked.attribute}
    assert attributes["plugin_namespace"] == b"tmdeploy_aot"
    assert attributes["plugin_version"] == b"1"
    assert attributes["aot"] == 1
    assert set(attributes) == {"plugin_namespace", "plugin_version", "aot", "settings"}
    return dict(zip(BY_NAME[marked.op_type].settings, attributes["settings"], strict=True))


def test_every_attribute_is_spelled_out() -> None:
    model = graph(
        step("TokenMatch", ["k", "s"], ["map", "index", "sim"]),
        step("TokenMatch", ["k", "s"], ["a", "b", "c"], order="tome_unsorted", metric_eps=1e-6, deterministic=0),
        step("TokenReduce", ["x", "map", "index"], ["y", "w"], mode="mlerp"),
        step("TokenReduce", ["x", "map", "index", "size"], ["z", "v"]),
        step("TokenReduce", ["x", "map", "index", ""], ["z0", "v0"]),
    )
    model, change = MarkAotPlugins()(model)
    assert str(change) == "mark-aot-plugins: nodes are ahead-of-time plugins (nodes: 5)"
    nodes = model.graph.node
    assert settings(nodes[0]) == {"num_prefix": 1, "order": 0, "metric_eps": 0, "deterministic": 1}
    bits = struct.unpack("<i", struct.pack("<f", 1e-6))[0]
    assert settings(nodes[1]) == {"num_prefix": 1, "order": 1, "metric_eps": bits, "deterministic": 0}
    assert [node.op_type for node in nodes[2:]] == ["TokenReduceAot", "TokenReduceWeightedAot", "TokenReduceAot"]
    assert [settings(node)["mode"] for node in nodes[2:]] == [5, 0, 0]
    assert [len(node.input) for node in nodes] == [2, 2, 3, 4, 3]


def test_optional_inputs_leave_no_gap_and_outputs_are_all_named() -> None:
    model = graph(
        step("TokenSelect", ["score", "slots", "", "kept"], ["map", "", "sim"], leftover="fuse", order="index")
    )
    (marked,) = MarkAotPlugins()(model)[0].graph.node
    assert marked.op_type == "TokenSelectFuseAot"
    assert list(marked.input) == ["score", "slots", "kept"]
    assert len(set(marked.output)) == 4
    assert "" not in marked.output
    assert (marked.output[0], marked.output[2]) == ("map", "sim")
    assert (settings(marked)["leftover"], settings(marked)["order"]) == (1, 1)


def test_names_are_unique_and_other_nodes_stay() -> None:
    other = onnx.helper.make_node("Relu", ["x"], ["r"], name="TokenMatch_4")
    twins = [
        step("TokenMatch", ["k", "s"], [f"a{i}", f"b{i}", f"c{i}"], name=name) for i, name in enumerate(["", "n", "n"])
    ]
    model = graph(other, *twins)
    model, _ = MarkAotPlugins()(model)
    assert [node.name for node in model.graph.node] == ["TokenMatch_4", "a0", "n", "a2"]
    assert model.graph.node[0].SerializeToString() == other.SerializeToString()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            step("TokenMatch", ["k", "s"], ["a"], order="rank"),
            "has no TensorRT plugin: TokenMatch: unknown order 'rank'",
        ),
        (step("TokenSelect", ["k", "s"], ["a"], leftover="nearest"), "lacks the input metric"),
        (step("TokenSelect", ["k", "s", "m"], ["a"], leftover="fuse"), "lacks the input kept"),
        (step("TokenPrune", ["k"], ["a"]), "no TensorRT plugin for TokenPrune"),
    ],
    ids=["order", "metric", "kept", "op"],
)
def test_what_has_no_plugin_is_refused(node: onnx.NodeProto, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        MarkAotPlugins()(graph(node))
