"""OpenVINO against ONNX Runtime's function bodies: the same logits and plans, with the extension and without."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import tmdeploy
from tests.export.exporting import save_tiny
from tests.plugins.building import built_openvino
from tests.vits import tiny_images, tiny_vit
from tmdeploy.backends import Runner, backend_for, open_runner
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.backends.openvino import OpenvinoRunner
from tmdeploy.backends.pairing import Samples
from tmdeploy.card.metadata import METADATA_KEY
from tmdeploy.doctor import BackendState, examine
from tmdeploy.errors import ArtifactError, DataError, EnvironmentMissing, UsageError
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.graph.inline_bodies import InlineBodies
from tmdeploy.native import openvino as native
from tmdeploy.native.library import REFUSAL_VARIABLE
from tmdeploy.native.trust import write_checksum
from tmdeploy.validate import Limits, validate

METHODS = ("tome", "evit", "topk", "mstm")
IMAGES = tiny_images(3).numpy()


@pytest.fixture(scope="session")
def extension() -> Path:
    return built_openvino()


@pytest.fixture(autouse=True)
def _use_the_built_extension(extension: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.OPENVINO_VARIABLE, str(extension))
    monkeypatch.delenv(REFUSAL_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @functools.cache
    def export(method: str, **request: object) -> Path:
        layers, amount = (None, {"r": 8}) if method == "tome" else ([1, 2], {})
        folder = tmp_path_factory.mktemp(method)
        checkpoint = save_tiny(tmdeploy.patch(tiny_vit(), method, layers=layers, **amount), folder)
        output = folder / f"{method}.onnx"
        export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False, **request))
        return output

    return export


def _schedules(runner: Runner) -> list[tuple[int, ...] | None]:
    assert runner.metadata is not None
    steps = len(runner.card.reduction.layers)
    uneven = tuple(3 + 5 * step for step in range(steps))
    return [None, *((amount,) * steps for amount in (0, 1, 999)), uneven]


@pytest.mark.parametrize("use_extension", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_logits_and_plans_are_those_of_onnxruntime(method: str, use_extension: bool, exported: Callable[..., Path]):
    path = exported(method)
    ours = OpenvinoRunner(path, threads=1, native=use_extension)
    theirs = OnnxRuntimeRunner(path, threads=1, native=False)
    lowering = ours.facts.lowering
    assert lowering.startswith("native (") if use_extension else lowering == "portable (function bodies, inlined)"
    for schedule in _schedules(theirs):
        for batch in (1, 3):
            images = IMAGES[:batch]
            got, wanted = ours.trace(images, schedule, tensors=True), theirs.trace(images, schedule, tensors=True)
            np.testing.assert_allclose(got.logits, wanted.logits, atol=1e-4, rtol=0)
            np.testing.assert_allclose(ours.infer(images, schedule), wanted.logits, atol=1e-4, rtol=0)
            assert len(got.steps) == len(wanted.steps) > 1
            for one, other in zip(got.steps, wanted.steps, strict=True):
                assert (one.block, one.op, one.map.dtype, one.index.dtype) == (other.block, other.op, "int32", "int32")
                np.testing.assert_array_equal(one.map, other.map)
                np.testing.assert_array_equal(one.index, other.index)
                for name in ("signal", "x_in", "x_out"):
                    np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)
                assert (one.size_out is None) == (other.size_out is None)
                if one.size_out is not None:
                    np.testing.assert_array_equal(one.size_out, other.size_out)


def test_a_file_with_inlined_bodies_needs_no_extension(exported: Callable[..., Path], tmp_path: Path):
    proto = InlineBodies()(onnx.load(exported("tome")))[0]  # what --lowering portable does
    assert not any(node.domain for node in proto.graph.node)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
    entry.value = entry.value.replace('"lowering":"custom"', '"lowering":"portable"')
    path = tmp_path / "portable.onnx"
    onnx.save(proto, path)
    runner = OpenvinoRunner(path, threads=1)
    assert runner.facts.lowering == "portable (standard ops in the file)"
    np.testing.assert_allclose(runner.infer(IMAGES), OnnxRuntimeRunner(path).infer(IMAGES), atol=1e-4)


def test_half_precision_and_pixels_in_the_graph(exported: Callable[..., Path]):
    path = exported("tome", precision="fp16", with_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    runner = OpenvinoRunner(path, threads=1)
    assert runner.pixels_in
    assert runner.facts.precision == "fp16"
    np.testing.assert_allclose(runner.infer(pixels), OnnxRuntimeRunner(path).infer(pixels), atol=5e-2, rtol=0)


def _bf16(path: Path) -> OpenvinoRunner | None:
    """None on a processor without bfloat16, where it must be refused."""
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return OpenvinoRunner(path, threads=1, precision="bf16")
    with pytest.raises(EnvironmentMissing, match="no bfloat16"):
        OpenvinoRunner(path, threads=1, precision="bf16")
    return None


@pytest.mark.parametrize("method", METHODS)
def test_brain_floats_within_their_own_limits(method: str, exported: Callable[..., Path]):
    path = exported(method)
    candidate = _bf16(path)
    if candidate is None:
        return
    reference = OnnxRuntimeRunner(path, threads=1, native=False)
    names = tuple(f"image {number}" for number in range(8))
    samples = Samples(tiny_images(8).numpy(), names, "eight", labels=np.full(8, -1))
    report = validate(reference, candidate, samples, batch_sizes=(1, 4), limits=Limits(max_ties=1.0))
    checks = {(check.level, check.name): check for check in report.checks}
    assert checks["numeric", "plans that differ"].passed, "plans are made in float32, whatever the arithmetic"
    assert checks["numeric", "plans that differ"].value == 0
    assert [check for check in report.checks if not check.passed and check.level != "model"] == []
    exact = np.abs(candidate.infer(IMAGES) - reference.infer(IMAGES)).max()
    assert exact > 1e-4, "it really computes in bfloat16"


def test_sizes_stay_whole_in_brain_floats(exported: Callable[..., Path]):
    candidate = _bf16(exported("tome"))
    if candidate is None:
        return
    for schedule in (None, (999,) * 4):
        for step in candidate.trace(IMAGES, schedule, tensors=True).steps:
            np.testing.assert_array_equal(step.size_out, np.round(step.size_out))
            np.testing.assert_array_equal(step.size_out.sum(axis=1), 65.0)


def test_reductions_in_brain_floats_take_brain_floats(exported: Callable[..., Path]):
    """No reorders from and to float32 around them, which would cost more than the reduction."""
    candidate = _bf16(exported("tome"))
    if candidate is None:
        return
    compiled = candidate._requests[False, False].get_compiled_model()
    ops = compiled.get_runtime_model().get_ordered_ops()
    native = [op for op in ops if op.get_rt_info()["layerType"].astype(str) == "Reference"]
    precisions = sorted(op.get_rt_info()["runtimePrecision"].astype(str) for op in native)
    assert precisions == ["bf16"] * 4 + ["f32"] * 4, "four reductions, four plans"


def test_validation_feeds_the_steps_to_openvino(exported: Callable[..., Path]):
    path = exported("evit")
    reference, candidate = OnnxRuntimeRunner(path, threads=1), OpenvinoRunner(path, threads=1)
    samples = Samples(IMAGES, ("a", "b", "c"), "three", labels=np.full(3, -1))
    report = validate(reference, candidate, samples, batch_sizes=(3,), schedules=(None, (20, 7)))
    assert report.passed
    assert {"numeric", "decisions", "model"} == {check.level for check in report.checks}
    assert report.candidate["backend"] == "openvino"


def test_choosing_a_backend(exported: Callable[..., Path], tmp_path: Path):
    path = exported("tome")
    assert backend_for(path).name == "onnxruntime"
    assert backend_for(path, "openvino:bf16").name == "openvino"
    runner = open_runner(path, threads=1, backend="openvino")
    assert isinstance(runner, Runner)
    assert runner.facts.precision == "fp32"
    with pytest.raises(UsageError, match=r"no backend 'tensorflow'\. Use one of: onnxruntime, .*openvino, pytorch"):
        backend_for(path, "tensorflow")
    with pytest.raises(UsageError, match="no precision 'int8' of openvino. Use openvino:f32, openvino:bf16"):
        backend_for(path, "openvino:int8")
    with pytest.raises(UsageError, match=r"openvino reads \.onnx only"):
        backend_for(tmp_path / "model.pt", "openvino")


def test_what_cannot_run_is_said_in_one_line(exported: Callable[..., Path], tmp_path: Path):
    runner = OpenvinoRunner(exported("tome"), threads=1)
    with pytest.raises(DataError, match=r"takes float32 \[batch, 3, 64, 64\], but was given uint8 \[3, 3, 64, 64\]"):
        runner.infer((IMAGES * 255).astype(np.uint8))
    for schedule in ((1,), (-1, 0, 0, 0)):
        with pytest.raises(UsageError):
            runner.infer(IMAGES, schedule)
    for content, message in ((b"", "is empty"), (b"nothing", "no ONNX file"), (None, "no such file")):
        path = tmp_path / "broken.onnx"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            open_runner(path, backend="openvino")


def test_an_op_that_openvino_does_not_know(exported: Callable[..., Path], tmp_path: Path):
    proto = onnx.load(exported("tome"))
    proto.graph.node[0].op_type = "NoSuchOp"
    onnx.save(proto, tmp_path / "strange.onnx")
    with pytest.raises(
        ArtifactError, match="OpenVINO cannot load it.*No conversion rule found for operations: NoSuchOp"
    ):
        OpenvinoRunner(tmp_path / "strange.onnx")


def test_a_missing_package_is_named(exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EnvironmentMissing, match=r"needs the Python package 'openvino'.*pip install .*\[openvino\]"):
        OpenvinoRunner(exported("tome"))
    with pytest.raises(EnvironmentMissing, match="building its extension needs the Python package 'openvino'"):
        native.build_openvino()


def test_finding_and_refusing_the_extension(
    extension: Path, exported: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert native.openvino_library().path == extension
    monkeypatch.setenv(REFUSAL_VARIABLE, "0")
    assert native.openvino_library() is None
    monkeypatch.delenv(REFUSAL_VARIABLE)
    monkeypatch.setenv(native.OPENVINO_VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(EnvironmentMissing, match="which is no file.*plugins build --openvino"):
        OpenvinoRunner(exported("tome"))
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    write_checksum(broken)
    monkeypatch.setenv(native.OPENVINO_VARIABLE, str(broken))
    with pytest.raises(EnvironmentMissing, match=r"does not load the native library .*broken\.so.*file too short"):
        OpenvinoRunner(exported("tome"))
    monkeypatch.delenv(native.OPENVINO_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.openvino_library() is None
    assert OpenvinoRunner(exported("tome")).facts.lowering == "portable (function bodies, inlined)"
    place = native.built_folder() / native.OPENVINO_LIBRARY
    assert f"openvino-{native.package_version('openvino')}" in place.parts
    place.parent.mkdir(parents=True)
    place.symlink_to(extension)
    assert OpenvinoRunner(exported("tome")).facts.lowering == f"native ({extension})"


def test_doctor_tries_the_extension(extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    states = {state.name: state for state in examine().backends}
    assert states["OpenVINO"].works
    assert states["native ops (OpenVINO)"] == BackendState("native ops (OpenVINO)", True, str(extension))
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    write_checksum(broken)
    monkeypatch.setenv(native.OPENVINO_VARIABLE, str(broken))
    state = {state.name: state for state in examine().backends}["native ops (OpenVINO)"]
    assert not state.works
    assert "file too short" in state.detail
    assert state.remedy == native.BUILD_COMMAND


def test_an_input_of_strings_is_refused_before_openvino_ends_the_process(tmp_path: Path):
    strings = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.STRING, ["batch", 3, 8, 8])
    result = onnx.helper.make_tensor_value_info("same", onnx.TensorProto.STRING, ["batch", 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["images"], ["same"])], "g", [strings], [result])
    path = tmp_path / "strings.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(ArtifactError, match="for images.*whose input is of numbers"):
        open_runner(path, backend="openvino")
