"""Real engines, built by TensorRT-RTX on the CPU. Nothing here runs one: that needs a GPU (docs/status.md)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest

from tests.tensorrt.conftest import Exported
from tests.tensorrt.engines import needs_rtx
from tmdeploy.errors import ArtifactError, ExportError, UsageError
from tmdeploy.methods import methods
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.build.run import BuildResult, build_engine
from tmdeploy.tensorrt.cuda.gpu import gpu_or_none
from tmdeploy.tensorrt.record.header import read_header
from tmdeploy.tensorrt.record.layers import KINDS, layers_path, read_layers_file
from tmdeploy.tensorrt.record.profiles import parse_batch
from tmdeploy.tensorrt.record.sidecar import Options, Vehicle, sidecar_path
from tmdeploy.tensorrt.run.compatibility import read_engine
from tmdeploy.tensorrt.run.validity import refusal
from tmdeploy.tensorrt.sdk.flavor import Flavor, Log, open_toolkit

pytestmark = needs_rtx
METHODS = [info.name for info in methods()]
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
SCHEDULES = {"tome": "0:8:20", "evit": "8:40:60", "mstm": "8:40:60", "topk": "8:40:60"}
TARGETS = ("sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
# Kernels that hold nodes of a step alone, as TensorRT-RTX 1.7.1 plans them. Fewer is better; more is a regression.
BUDGET = {"tome": 12, "evit": 5, "mstm": 11, "topk": 1}


def _build(model: Path, folder: Path, **changes: object) -> BuildResult:
    batches = changes.pop("batches", "2")
    profiles = tuple(parse_batch(text) for text in str(batches).split())
    request = BuildRequest(model, folder / "tiny.plan", flavor="rtx", profiles=profiles, **changes)
    return build_engine(request)


def _check(result: BuildResult) -> None:
    """The file is a whole engine of this version, and its sidecar describes it."""
    version = open_toolkit("rtx", purpose="a test").version
    assert read_header(result.path).version == version == result.record.tensorrt_version
    assert read_engine(result.path) == result.record
    assert result.record.bytes > 100_000
    assert [tensor.name for tensor in result.record.outputs] == ["logits"]
    detailed = result.record.options.profiling_verbosity == "detailed"
    listed = {"tiny.plan.layers.json"} if detailed else set()
    assert {path.name for path in result.path.parent.iterdir()} == {"tiny.plan", "tiny.plan.json"} | listed


def _check_layers(result: BuildResult, method: str) -> None:
    """The listing beside the engine names every part of the model, and counts as the sidecar does."""
    record = result.record
    stored = read_layers_file(result.path, engine_sha256=record.sha256)
    assert stored is not None
    assert record.kernels is not None
    assert record.memory is not None
    (listing,) = stored.listings
    layers = listing.layers
    assert sum(layer.launches for layer in layers) == record.kernels.total
    kinds = Counter(layer.kind for layer in layers)
    assert {"attention", "mlp", "embedding", "head"} <= set(kinds) <= {*KINDS, "step", "schedule", "shapes", "other"}
    assert kinds["linear"] == 0  # ToMe's metric, the mean of the keys over the heads, is told apart
    # one kernel may serve two steps: what does not depend on the tokens is computed once
    assert sum(step.only for step in record.kernels.steps) == sum(
        len(one.blocks) for one in layers if one.kind == "step"
    )
    parts = {part for layer in layers for part in layer.parts}
    assert parts >= (set() if method == "none" else {"plan", "reduce"})
    assert all(layer.outputs and layer.types for layer in layers if layer.launches)
    assert [(tensor.name, tensor.location) for tensor in stored.io] == [("images", "device"), ("logits", "device")]
    assert stored.io[0].ranges == (((2, 3, 64, 64),) * 3,)
    assert record.memory.weights_bytes is not None
    assert 0 < record.memory.weights_bytes < record.bytes


def test_the_runtime_takes_the_header_for_one_of_its_engines(exported: Exported, tmp_path: Path):
    """All that TensorRT-RTX reads without a GPU: it then asks for the GPU's compute capability, and gets none."""
    module = open_toolkit("rtx", purpose="a test").module
    log = Log(module)
    runtime = module.Runtime(log.logger)
    content = _build(exported("none"), tmp_path).path.read_bytes()
    malformed = int(module.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    ours = runtime.get_engine_validity(content[: runtime.engine_header_size])
    assert int(ours[1]) & malformed == 0
    for damaged in (b"ftrt" + content[4:64], content[:20]):
        reason, _ = refusal(module, runtime, damaged, "build") or ("", "")
        assert reason == "it is damaged"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_method_at_every_precision(method: str, precision: str, exported: Exported, tmp_path: Path):
    result = _build(exported(method), tmp_path, precision=precision)
    _check(result)
    record = result.record
    assert (record.precision, record.lowering, record.flavor) == (precision, "portable", Flavor.RTX)
    assert record.inputs[0].shape == (2, 3, 64, 64)
    assert [tensor.type for tensor in (*record.inputs, *record.outputs)] == ["float", "float"]
    assert record.kernels is not None
    # fp16 and bf16 have one kernel for softmax and both products, merged or not; fp32 has none
    assert record.kernels.fused_attention == (2 if precision in {"fp16", "bf16"} else 0)
    _check_layers(result, method)
    steps = record.kernels.steps
    assert [step.block for step in steps] == ([] if method == "none" else [0, 1])
    assert all(0 < step.only <= BUDGET[method] for step in steps)


@pytest.mark.parametrize("method", METHODS)
def test_any_batch_and_any_schedule(method: str, exported: Exported, tmp_path: Path):
    schedule = SCHEDULES.get(method)
    result = _build(exported(method), tmp_path, precision="fp16", schedule=schedule, batches="1:1:2 4:8:16")
    _check(result)
    record = result.record
    assert [str(profile) for profile in record.profiles] == ["1:1:2", "4:8:16"]
    stored = read_layers_file(result.path, engine_sha256=record.sha256)
    assert stored is not None
    assert record.kernels is not None
    assert [listing.profile for listing in stored.listings] == [0, 1]
    assert sum(layer.launches for layer in stored.listings[0].layers) == record.kernels.total
    kinds = [Counter(layer.kind for layer in listing.layers) for listing in stored.listings]
    assert kinds[0]["attention"] == kinds[1]["attention"] > 0
    assert record.kernels.fused_attention == 2  # of two blocks, not of two profiles
    assert record.inputs[0].shape == (-1, 3, 64, 64)
    if schedule is None:
        assert len(record.inputs) == 1
        return
    assert record.schedule is not None
    shape_input = record.inputs[1]
    assert (shape_input.name, shape_input.type, shape_input.shape) == (record.schedule.kind, "int64", (2,))
    assert shape_input.shape_input
    assert min(record.schedule.fewest_tokens) > 1


@pytest.mark.parametrize("target", TARGETS)
def test_every_target(target: str, exported: Exported, tmp_path: Path):
    result = _build(exported("tome"), tmp_path, precision="fp16", target_sm=(target,))
    _check(result)
    assert result.record.target_sm == (target,)


def test_several_targets_at_once(exported: Exported, tmp_path: Path):
    _check(_build(exported("tome"), tmp_path, precision="bf16", target_sm=("sm_86", "sm_120")))


def test_without_details_there_is_no_listing(exported: Exported, tmp_path: Path):
    """And none of an earlier engine of the same name stays behind."""
    _build(exported("none"), tmp_path)
    assert layers_path(tmp_path / "tiny.plan").is_file()
    result = _build(exported("none"), tmp_path, options=Options(profiling_verbosity="none"))
    _check(result)
    assert result.record.kernels is None


@pytest.mark.parametrize("options", [Options(strip_weights=True), Options(refittable=True)])
def test_refitting_needs_a_gpu_to_build(options: Options, exported: Exported, tmp_path: Path):
    if gpu_or_none() is not None:
        pytest.skip("there is a GPU here")
    flag = "strip-weights" if options.strip_weights else "refittable"
    with pytest.raises(ExportError, match=f"TensorRT-RTX needs a GPU for --{flag}"):
        _build(exported("none"), tmp_path, options=options)
    assert list(tmp_path.iterdir()) == []


def test_targets_that_cannot_be(exported: Exported, tmp_path: Path):
    with pytest.raises(
        ExportError, match=r"could not build it \(.*Turing \(SM75\): FP32 GEMM is not supported.*leave it out"
    ):
        _build(exported("tome"), tmp_path, precision="fp16", target_sm=("sm_75",))
    with pytest.raises(UsageError, match=r"--target-sm sm_90: unknown here\. Choose from: .*sm_89"):
        _build(exported("tome"), tmp_path, target_sm=("sm_90",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        Options(builder_optimization_level=0, workspace_mib=64, profiling_verbosity="layer-names-only"),
        Options(weight_streaming=True),
    ],
)
def test_builder_options(options: Options, exported: Exported, tmp_path: Path):
    result = _build(exported("tome"), tmp_path, options=options)
    _check(result)
    assert result.record.options == options


@pytest.mark.parametrize(
    "request_changes", [{"lowering": "portable"}, {"with_preprocessing": True}, {"precision": "fp16"}]
)
def test_files_exported_in_other_ways(request_changes: dict, exported: Exported, tmp_path: Path):
    result = _build(exported("tome", **request_changes), tmp_path, precision="fp16")
    _check(result)
    assert result.record.inputs[0].type == ("uint8" if "with_preprocessing" in request_changes else "float")


def test_a_static_file_has_one_batch_size(exported: Exported, tmp_path: Path):
    path = exported("tome", dynamic_batch=False)
    _check(_build(path, tmp_path, batches="1"))
    with pytest.raises(UsageError, match=r"takes batch 1 only, not 1:8:32\. Build with --profile 1"):
        _build(path, tmp_path, batches="1:8:32")


def test_an_fp16_file_stays_fp16(exported: Exported, tmp_path: Path):
    with pytest.raises(UsageError, match="--precision bf16: the file is fp16 already"):
        _build(exported("tome", precision="fp16"), tmp_path, precision="bf16")


def test_what_the_flavor_lacks_is_said(exported: Exported, tmp_path: Path):
    library = tmp_path / "library.so"
    library.write_bytes(b"")
    folder = tmp_path / "out"
    folder.mkdir()
    result = _build(exported("tome"), folder, plugin=library, timing_cache=tmp_path / "t.cache")
    without = "TensorRT-RTX has no plugins: built from the function bodies (portable lowering)"
    assert result.record.notes.count(without) == 1
    assert any("--timing-cache has no effect" in note for note in result.record.notes)
    assert (result.record.lowering, result.record.vehicle) == ("portable", Vehicle.NONE)
    assert without not in _build(exported("tome"), folder, plugins="none").record.notes  # as it was asked for
    for options, message in (
        (Options(hardware_compatible="ampere+"), "--hardware-compatible: TensorRT-RTX does not have it"),
        (Options(version_compatible=True), "--version-compatible: TensorRT-RTX engines run on the version"),
    ):
        with pytest.raises(UsageError, match=message):
            _build(exported("tome"), folder, options=options)


def test_an_op_the_parser_refuses_is_named(tmp_path: Path):
    given = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])]
    out = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Det", ["x"], ["y"], name="determinant")], "g", given, out)
    path = tmp_path / "det.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(ExportError, match=r"TensorRT-RTX .* refuses the graph \(.*determinant.*Det"):
        _build(path, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["det.onnx"]


def test_a_build_that_is_stopped_leaves_nothing(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cancelled in the middle, as Ctrl-C does it."""
    phases: list[str] = []

    def stop(text: str, share: float) -> None:
        phases.append(text)
        if text == "Optimizing graph":
            import _thread

            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        build_engine(BuildRequest(exported("tome"), tmp_path / "tiny.plan", flavor="rtx"), stop)
    assert "Cloning network graph" in phases
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_rebuild_keeps_the_old_engine(exported: Exported, tmp_path: Path):
    result = _build(exported("none"), tmp_path)
    before = (result.path.read_bytes(), sidecar_path(result.path).read_text())
    with pytest.raises((ExportError, ArtifactError, UsageError)):
        _build(exported("tome"), tmp_path, precision="bf16", target_sm=("sm_75",))
    assert (result.path.read_bytes(), sidecar_path(result.path).read_text()) == before
    assert json.loads(before[1])["schema"] == "tmdeploy.engine/2"
