"""The custom-op library in ONNX Runtime: kernels win over function bodies, and compute the same."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import tmdeploy
from tests.export.exporting import export_module
from tests.vits import tiny_images, tiny_vit
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.backends.onnxruntime.session import make_session
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.graph.inline_bodies import InlineBodies
from tmdeploy.native import library
from tmdeploy.native.trust import write_checksum
from tmdeploy.ops import DOMAIN, VERSION
from tmdeploy.ops.bodies import function_body

METHODS = ("tome", "evit", "topk", "mstm")
OPS = {"TokenMatch", "TokenSelect", "TokenReduce"}


@pytest.fixture(autouse=True)
def _use_the_built_library(ort_built: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(ort_built))
    monkeypatch.delenv(library.REFUSAL_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def export(method: str, precision: str = "fp32") -> Path:
        layers, amount = (None, {"r": 8}) if method == "tome" else ([1, 2], {})
        folder = tmp_path_factory.mktemp(method)
        export_module(tmdeploy.patch(tiny_vit(), method, layers=layers, **amount), folder, precision=precision)
        return folder / "tiny.onnx"

    return export


def _ops_that_ran(path: Path, folder: Path) -> set[str]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.register_custom_ops_library(str(library.ort_library().path))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"images": tiny_images(1).numpy()})
    events = json.loads(Path(session.end_profiling()).read_text())
    return {event["args"]["op_name"] for event in events if "op_name" in event.get("args", {})}


@pytest.mark.parametrize("method", METHODS)
def test_one_file_three_ways(method: str, exported: Callable[[str], Path], tmp_path: Path):
    path = exported(method)
    portable = tmp_path / "portable.onnx"
    onnx.save(InlineBodies()(onnx.load(path))[0], portable)  # what --lowering portable does
    runners = {
        "native": OnnxRuntimeRunner(path, threads=2),
        "bodies": OnnxRuntimeRunner(path, threads=2, native=False),
        "portable": OnnxRuntimeRunner(portable, threads=2),
    }
    assert runners["native"].facts.lowering.startswith("native (")
    assert runners["bodies"].facts.lowering == "portable (function bodies)"
    ran = _ops_that_ran(path, tmp_path) & OPS
    assert ran == {"TokenReduce", "TokenMatch" if method == "tome" else "TokenSelect"}

    for batch, seed in ((1, 1), (3, 2)):
        images = tiny_images(batch, seed).numpy()
        traces = {name: runner.trace(images) for name, runner in runners.items()}
        for other in ("bodies", "portable"):
            np.testing.assert_allclose(traces["native"].logits, traces[other].logits, atol=1e-5, rtol=0)
            for ours, theirs in zip(traces["native"].steps, traces[other].steps, strict=True):
                np.testing.assert_array_equal(ours.map, theirs.map)
                np.testing.assert_array_equal(ours.index, theirs.index)


def test_runtime_schedule(exported: Callable[[str], Path]):
    path = exported("tome")
    native, bodies = OnnxRuntimeRunner(path), OnnxRuntimeRunner(path, native=False)
    images = tiny_images(2).numpy()
    for amount in (0, 1, 32):
        schedule = [amount] * native.schedule_length
        np.testing.assert_allclose(native.infer(images, schedule), bodies.infer(images, schedule), atol=1e-5, rtol=0)


def test_half_precision(exported: Callable[..., Path], tmp_path: Path):
    path = exported("tome", "fp16")
    images = tiny_images(2).numpy()
    native, bodies = (OnnxRuntimeRunner(path, native=native).infer(images) for native in (True, False))
    np.testing.assert_allclose(native, bodies, atol=5e-2, rtol=0)
    assert _ops_that_ran(path, tmp_path) >= {"TokenMatch", "TokenReduce"}


def _one_node(op: str, inputs: list[tuple[str, int, list[object]]], outputs: list[str], **attributes: object) -> bytes:
    node = helper.make_node(op, [name for name, _, _ in inputs], outputs, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "op",
        [helper.make_tensor_value_info(*entry) for entry in inputs if entry[0]],
        [helper.make_tensor_value_info(outputs[0], TensorProto.INT32 if outputs[0] == "map" else inputs[0][1], None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _run(model: bytes, feeds: dict[str, np.ndarray], optimise: bool = True) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.register_custom_ops_library(str(library.ort_library().path))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


_MATCH = [("metric", TensorProto.FLOAT, ["b", "n", "c"]), ("slots", TensorProto.INT64, ["m"])]
_REDUCE = [
    ("x", TensorProto.FLOAT, ["b", "n", "f"]),
    ("map", TensorProto.INT32, ["b", "n"]),
    ("index", TensorProto.INT32, ["b", "m"]),
]
_METRIC = np.random.default_rng(0).standard_normal((1, 9, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "feeds", "message"),
    [
        (_one_node("TokenMatch", _MATCH, ["map", "index", "sim"]), {"metric": _METRIC, "slots": np.arange(3)}, "half"),
        (
            _one_node("TokenMatch", _MATCH, ["map", "index", "sim"]),
            {"metric": _METRIC, "slots": np.arange(10)},
            "exceed",
        ),
        (
            _one_node("TokenReduce", _REDUCE, ["y", "wsum"]),
            {"x": _METRIC, "map": np.full((1, 9), 9, np.int32), "index": np.zeros((1, 4), np.int32)},
            "the plan points outside its range",
        ),
        (
            _one_node("TokenReduce", _REDUCE, ["y", "wsum"]),
            {"x": _METRIC, "map": np.zeros((1, 8), np.int32), "index": np.zeros((1, 4), np.int32)},
            "shapes do not fit: x .1, 9, 4., map .1, 8.",
        ),
    ],
)
def test_errors_are_statuses(model: bytes, feeds: dict[str, np.ndarray], message: str):
    with pytest.raises(Exception, match=message):
        _run(model, feeds)


def test_an_unknown_attribute_value_is_refused_when_loading():
    with pytest.raises(Exception, match="unknown mode 'median'"):
        _run(_one_node("TokenReduce", _REDUCE, ["y", "wsum"], mode="median"), {})


@pytest.mark.parametrize("optimise", [True, False])
def test_the_kernel_wins_whatever_the_optimisation_level(optimise: bool):
    """The function says that nothing moves; the kernel merges."""
    model = onnx.load_from_string(_one_node("TokenMatch", _MATCH, ["map", "index", "sim"]))
    function = function_body("TokenMatch", {}, 20)
    del function.node[:]
    function.node.extend(
        onnx.parser.parse_function(
            f'<domain: "{DOMAIN}", opset_import: ["" : 20]> TokenMatch (metric, slots) => (plan_map, index, sim) {{'
            " plan_map = Constant <value = int32[1] {-5}> ()\n index = Identity (plan_map)\n"
            " sim = Cast <to = 1> (index) }"
        ).node
    )
    model.functions.append(function)
    feeds = {"metric": _METRIC, "slots": np.arange(6)}
    (plan,) = _run(model.SerializeToString(), feeds, optimise)
    assert plan.shape == (1, 9)


def test_brain_floats():
    bf16 = TensorProto.BFLOAT16
    model = onnx.load_from_string(_one_node("TokenReduce", [("x", bf16, [1, 9, 4]), *_REDUCE[1:]], ["y", "wsum"]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.input[0].name = "wide"
    model.graph.node.insert(0, helper.make_node("Cast", ["wide"], ["x"], to=bf16))
    model.graph.node.append(helper.make_node("Cast", ["y"], ["narrow"], to=TensorProto.FLOAT))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("narrow", TensorProto.FLOAT, None))
    index = np.arange(9, dtype=np.int32)[None]
    (got,) = _run(model.SerializeToString(), {"wide": np.round(_METRIC), "map": index, "index": index})
    np.testing.assert_array_equal(got, np.round(_METRIC))


def test_finding_and_refusing(ort_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert library.ort_library().path == ort_built
    monkeypatch.setenv(library.REFUSAL_VARIABLE, "1")
    library.refuse_native()
    assert library.ort_library() is None
    monkeypatch.delenv(library.REFUSAL_VARIABLE)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(EnvironmentMissing, match="which is no file"):
        library.ort_library()
    monkeypatch.delenv(library.LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert {place.exists for place in library.ort_libraries()[1:]} == {False}


def test_a_library_that_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    write_checksum(broken)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(broken))
    with pytest.raises(EnvironmentMissing, match=r"broken\.so does not load"):
        make_session(_one_node("TokenReduce", _REDUCE, ["y", "wsum"]), path=tmp_path / "model.onnx")
