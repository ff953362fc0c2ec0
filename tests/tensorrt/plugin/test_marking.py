"""ONNX nodes become plugin nodes, nothing else can quietly take their place, and the steps of a whole model agree."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnxruntime
import pytest
import torch

import tmdeploy
from tests.export.exporting import save_tiny
from tests.tensorrt.plugin.bindings import newest
from tests.tensorrt.plugin.driver import build_node
from tests.tensorrt.plugin.entry_library import EntryLibrary
from tests.vits import tiny_images, tiny_vit
from tmdeploy.errors import CheckFailed, EnvironmentMissing, UnsupportedModel
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.ops import DOMAIN
from tmdeploy.tensorrt.plugin import mark_nodes, register_plugins, require_plugin_layers
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
    mark_nodes(model)
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
    mark_nodes(model)
    (marked,) = model.graph.node
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
    names = mark_nodes(model)
    assert len(set(names)) == 3
    assert [node.name for node in model.graph.node] == ["TokenMatch_4", *names]
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
        mark_nodes(graph(node))


@pytest.fixture(scope="session", params=["tome", "evit", pytest.param("mstm", marks=pytest.mark.slow)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    layers = None if request.param == "tome" else [1, 2]
    amount = {"r": 8} if request.param == "tome" else {}
    model = tmdeploy.patch(tiny_vit(0), request.param, layers=layers, **amount)
    path = folder / "model.onnx"
    export_checkpoint(ExportRequest(checkpoint=save_tiny(model, folder), output=path, verify=False))
    return path


@newest
def test_steps_of_an_exported_model(bindings: SimpleNamespace, entries: EntryLibrary, exported: Path) -> None:
    """Every token node of the file, fed what ONNX Runtime feeds its function body, gives what the body gives."""
    model = onnx.load(exported)
    names = mark_nodes(model)
    assert not [function for function in model.functions if function.domain == DOMAIN]
    onnx.shape_inference.infer_shapes(model)  # the parser's reader takes it: unknown ops pass
    marked = [node for node in model.graph.node if node.domain == DOMAIN]
    assert [node.name for node in marked] == list(names)
    assert len(names) >= 4

    original = onnx.load(exported)
    present = {name for node in original.graph.node for name in node.output}
    known = {value.name for value in original.graph.output}
    wanted = [n for node in marked for n in [*node.input, *node.output] if n in present and n not in known]
    original.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted))
    session = onnxruntime.InferenceSession(original.SerializeToString(), providers=["CPUExecutionProvider"])
    values = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"images": tiny_images(3).numpy()}), strict=True)
    )
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in original.graph.initializer}
    checked = 0
    for node in marked:
        arrays = [np.ascontiguousarray(values[name] if name in values else constants[name]) for name in node.input]
        inputs = [torch.from_numpy(array.copy()) for array in arrays]
        built = build_node(bindings, node, [list(t.shape) for t in inputs], [t.dtype for t in inputs])
        for name, got in zip(node.output, built.run(entries, inputs, {}), strict=True):
            if name in values:
                expected = torch.from_numpy(values[name].copy())
                assert got.dtype == expected.dtype
                if got.dtype == torch.int32:
                    assert torch.equal(got, expected), f"{node.name} {name}"
                else:
                    assert torch.allclose(got, expected, atol=1e-6), f"{node.name} {name}"
                checked += 1
    assert checked >= 2 * len(marked)


def test_importing_needs_no_tensorrt() -> None:
    code = (
        "import sys; sys.modules['tensorrt'] = None\n"
        "import tmdeploy.tensorrt.plugin as p\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
        "from tmdeploy.errors import EnvironmentMissing\n"
        "try: p.register_plugins()\n"
        "except EnvironmentMissing as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "building an engine needs the Python package 'tensorrt'" in done.stdout, done.stderr


def test_tensorrt_before_aot_is_refused(bindings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(bindings.trt, "QuickPluginCreationRequest")
    with pytest.raises(EnvironmentMissing, match="no ahead-of-time Python plugins. Use TensorRT 10.9 or newer"):
        register_plugins()


def test_registering_twice_changes_nothing(bindings: SimpleNamespace) -> None:
    before = dict(bindings.trt.get_plugin_registry().creators)
    register_plugins()  # would need installed PTX if it did anything
    assert bindings.trt.get_plugin_registry().creators == before
    assert {name for name, _, _ in before} == set(BY_NAME)


class _Network:
    def __init__(self, trt: Any, layers: list[tuple[str, str]]) -> None:
        self._layers = [SimpleNamespace(name=name, type=trt.LayerType[kind]) for name, kind in layers]
        self.num_layers = len(layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


def test_nodes_that_did_not_become_plugin_layers_fail(bindings: SimpleNamespace) -> None:
    parsed = [("match", "PLUGIN_V3"), ("cast", "SHUFFLE"), ("reduce_1", "PLUGIN_V3")]
    require_plugin_layers(_Network(bindings.trt, parsed), ["match", "reduce"])
    with pytest.raises(CheckFailed, match="1 of 2 token nodes did not become plugin layers, the first is cast"):
        require_plugin_layers(_Network(bindings.trt, parsed), ["match", "cast"])
    with pytest.raises(CheckFailed, match="2 of 2 token nodes"):
        require_plugin_layers(_Network(bindings.trt, []), ["match", "reduce"])
