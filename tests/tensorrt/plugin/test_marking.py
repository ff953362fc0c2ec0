"""ONNX nodes become plugin nodes, nothing else can quietly take their place, and the steps of a whole model agree."""

from __future__ import annotations

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
from tmdeploy.errors import CheckFailed, EnvironmentMissing
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.graph.mark_aot_plugins import MarkAotPlugins
from tmdeploy.ops import DOMAIN
from tmdeploy.tensorrt.plugin import register_plugins, require_plugin_layers
from tmdeploy.tensorrt.plugin.operators import BY_NAME


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
    model, _ = MarkAotPlugins()(onnx.load(exported))
    assert not [function for function in model.functions if function.domain == DOMAIN]
    onnx.shape_inference.infer_shapes(model)  # the parser's reader takes it: unknown ops pass
    marked = [node for node in model.graph.node if node.domain == DOMAIN]
    assert len(marked) >= 4

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
