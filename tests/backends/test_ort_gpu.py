"""ONNX Runtime's GPU providers, on stand-ins: the logic around them. The real package is in test_ort_gpu_package.py."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import tmdeploy
from tests.cli.running import run
from tests.export.exporting import export_module
from tests.vits import tiny_images, tiny_vit
from tmdeploy.backends import backend_for
from tmdeploy.backends.onnxruntime import gpu, packages
from tmdeploy.backends.onnxruntime.gpu import CudaTarget, cuda_options
from tmdeploy.backends.onnxruntime.packages import CUDA, TENSORRT
from tmdeploy.backends.onnxruntime.placement import Placement
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.backends.onnxruntime.session import CPU, CpuTarget
from tmdeploy.backends.onnxruntime.tensorrt import (
    TF32_VARIABLE,
    OnnxRuntimeTensorrtRunner,
    TensorrtTarget,
    engine_folder,
    tensorrt_options,
)
from tmdeploy.backends.pairing import Samples
from tmdeploy.card.metadata import METADATA_KEY
from tmdeploy.doctor import examine
from tmdeploy.errors import EnvironmentMissing, UsageError
from tmdeploy.native.library import LIBRARY_VARIABLE, REFUSAL_VARIABLE
from tmdeploy.native.trust import write_checksum
from tmdeploy.validate import validate

IMAGES = tiny_images(3).numpy()
MODEL = Path("model.onnx")


@dataclass
class Node:
    op_type: str
    domain: str = ""


@dataclass
class Part:
    ep_name: str
    nodes: list[Node]

    def get_nodes(self) -> list[Node]:
        return self.nodes


@dataclass
class FakeSession:
    """What `confirm` and `describe` ask a session for."""

    providers: list[str]
    parts: list[Part] = field(default_factory=list)

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list[Part]:
        return self.parts


class OldSession:
    """Of ONNX Runtime 1.23: it does not tell where nodes are."""

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]


@dataclass
class FakeRuntime:
    offered: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    cuda_version: str = "13.0"
    severities: list[int] = field(default_factory=list)
    __version__: str = "1.31.1"

    def get_available_providers(self) -> list[str]:
        return list(self.offered)

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)

    @staticmethod
    def preload_dlls() -> None:
        print("Failed to load libcublas.so")  # it prints to stdout, where --json - goes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tome")
    export_module(tmdeploy.patch(tiny_vit(), "tome", r=8), folder)
    return folder / "tiny.onnx"


@pytest.fixture
def reason(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a try in another process finds; without trying."""
    reasons = ["libcublasLt.so.13: cannot open shared object file: No such file or directory"]
    monkeypatch.setattr(gpu, "reason_of", lambda provider, device_id: reasons[0])
    return reasons


def test_they_are_backends_of_onnx_files():
    for name in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        assert backend_for(MODEL, name).name == name
    assert backend_for(MODEL).name == "onnxruntime"
    with pytest.raises(UsageError, match="no precision 'fp16' of onnxruntime-tensorrt.*the precision it has"):
        backend_for(MODEL, "onnxruntime-tensorrt:fp16")


def test_a_package_without_the_provider_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch):
    runtime = FakeRuntime(offered=(CPU,))
    monkeypatch.setattr(packages, "installed_packages", lambda: {"onnxruntime": "1.31.1"})
    with pytest.raises(EnvironmentMissing) as caught:
        CudaTarget(native=False).prepare(runtime, MODEL)
    assert f"was built without {CUDA}; it has {CPU}. Install the package for GPUs" in str(caught.value)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[" in str(caught.value)
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"}
    monkeypatch.setattr(packages, "installed_packages", lambda: both)
    with pytest.raises(EnvironmentMissing, match="onnxruntime 1.31.1 and onnxruntime-gpu 1.30.0 overwrite each other"):
        CudaTarget(native=False).prepare(runtime, MODEL)


def test_the_installed_packages_are_found():
    assert "onnxruntime" in packages.installed_packages()


def test_preparing_prints_nothing(capsys: pytest.CaptureFixture[str]):
    runtime = FakeRuntime()
    CudaTarget(native=False).prepare(runtime, MODEL)
    assert capsys.readouterr() == ("", "")
    assert runtime.severities == [4]


def test_a_session_of_the_cpu_is_refused_with_the_reason(reason: list[str]):
    runtime = FakeRuntime()
    with pytest.raises(EnvironmentMissing) as caught:
        CudaTarget(native=False).confirm(runtime, FakeSession([CPU]), MODEL)
    text = str(caught.value)
    assert text.startswith(f"ONNX Runtime's {CUDA} does not start (libcublasLt.so.13: cannot open shared object file")
    assert "It needs CUDA 13 and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]'" in text
    assert runtime.severities[-1] == 2
    reason[0] = ""
    with pytest.raises(EnvironmentMissing, match="fell back to the CPU and does not say why"):
        CudaTarget(native=False).confirm(runtime, FakeSession([CPU]), MODEL)


@pytest.mark.parametrize(
    ("said", "told", "remedy"),
    [
        (
            "[E] Failed to load library /x.so with error: libnvinfer.so.10: cannot open shared object file: No\n\x1b[m",
            "libnvinfer.so.10: cannot open shared object file: No",
            "It needs TensorRT 10, no other: pip install 'tensorrt-cu13~=10.0'",
        ),
        (
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=x",
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
            "an NVIDIA GPU and a driver that is new enough",
        ),
        (
            "Failed to load library /x/y.so with error: libcuda.so.1: cannot open shared object file",
            "libcuda.so.1: cannot open shared object file",
            "an NVIDIA GPU and a driver",
        ),
        ('FAIL : provider_options_utils.h:182 Parse Unknown provider option: "use_tf32".', None, "newer ONNX Runtime"),
        (
            "cc:1220 x Invalid TensorRT EP option: trt_new\n",
            "Invalid TensorRT EP option: trt_new",
            "newer ONNX Runtime",
        ),
        ("cuDNN is unavailable or disabled for CUDA", None, "cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    ],
)
def test_reasons_and_remedies(said: str, told: str | None, remedy: str):
    found = packages.telling(said)
    assert found == told if told is not None else found
    error = CudaTarget(native=False).cause(FakeRuntime(), RuntimeError(said))
    assert error is not None
    assert found in str(error)
    assert remedy in str(error)


def test_a_model_to_blame_is_left_to_the_caller(reason: list[str]):
    target, blamed = CudaTarget(native=False), RuntimeError("no kernel for op Foo")
    error = target.cause(FakeRuntime(), blamed)  # of the CPU, perhaps: the provider does not start
    assert error is not None
    assert "libcublasLt.so.13" in str(error)
    target.confirm(FakeRuntime(), FakeSession([CUDA, CPU]), MODEL)
    assert target.cause(FakeRuntime(), blamed) is None
    assert target.cause(FakeRuntime(), RuntimeError("CUDA failure 2: out of memory ; GPU=0")) is None
    assert target.cause(FakeRuntime(), RuntimeError("cuDNN is unavailable")) is not None
    reason[0] = ""
    assert CudaTarget(native=False).cause(FakeRuntime(), blamed) is None


def test_tensorrts_exception_does_not_say_what_is_missing_but_its_log_does(reason: list[str]):
    reason[0] = "libnvinfer.so.10: cannot open shared object file"
    error = TensorrtTarget().cause(FakeRuntime(), RuntimeError("Please install TensorRT libraries as mentioned in"))
    assert error is not None
    assert "libnvinfer.so.10" in str(error)


def test_placement_is_counted_and_told():
    session = FakeSession(
        [CUDA, CPU],
        [
            Part(CUDA, [Node("MatMul"), Node("TokenMatch", "tmdeploy")]),
            Part(CPU, [Node("Concat")]),
            Part(CPU, [Node("Concat")]),
        ],
    )
    placement = Placement.of(session)
    assert placement is not None
    assert str(placement) == "nodes: 2 on CUDA, 2 on the CPU (2 Concat)"
    assert (placement.on(CUDA), placement.on(TENSORRT)) == (2, 0)
    assert not placement.strays
    remarks = CudaTarget(native=False, device_id=1).remarks(session)
    assert remarks == {"placement": "nodes: 2 on CUDA, 2 on the CPU (2 Concat)"}
    session.parts.append(Part(CPU, [Node("NonZero")]))
    assert CudaTarget(native=False).remarks(session)["copied_to_the_cpu_for"] == "1 NonZero"
    assert "1.24" in CudaTarget(native=False).remarks(OldSession())["placement"]


def test_a_runner_says_which_gpu(digits_onnx: Path):
    runner = OnnxRuntimeRunner(digits_onnx, threads=1)
    runner._target, runner._session = CudaTarget(native=False, device_id=1), FakeSession([CUDA, CPU])
    facts = runner._facts()
    assert (facts.backend, facts.device, facts.gpu, facts.native) == ("onnxruntime-cuda", "cuda:1", 1, False)
    said = facts.described()
    assert (said["provider"], said["device"], said["lowering"]) == (CUDA, "cuda:1", "portable (function bodies)")


def test_steps_on_the_cpu_are_refused():
    parts = [Part(CUDA, [Node("MatMul")]), Part(CPU, [Node("TokenReduce", "tmdeploy"), Node("Concat")])]
    with pytest.raises(EnvironmentMissing, match=r"steps on the CPU \(1 tmdeploy::TokenReduce\).*--no-native"):
        CudaTarget(native=False).confirm(FakeRuntime(), FakeSession([CUDA, CPU], parts), MODEL)
    CudaTarget(native=False).confirm(FakeRuntime(), OldSession(), MODEL)


@pytest.mark.parametrize(("target", "other"), [(TensorrtTarget(), CUDA), (CudaTarget(native=False), CPU)])
def test_a_provider_has_to_take_something(target: Any, other: str):
    session = FakeSession([target.provider, CUDA, CPU], [Part(other, [Node("MatMul")])])
    with pytest.raises(EnvironmentMissing, match=f"the {target.provider} took no node of it .nodes: 1 on"):
        target.confirm(FakeRuntime(), session, MODEL)
    session.parts.append(Part(target.provider, [Node("Conv")]))
    target.confirm(FakeRuntime(), session, MODEL)
    shapes_alone = FakeSession([target.provider, CPU], [Part(CPU, [Node("Concat")])])
    target.confirm(FakeRuntime(), shapes_alone, MODEL)


def test_only_a_library_with_cuda_kernels_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(REFUSAL_VARIABLE, raising=False)
    path = tmp_path / "library.so"
    monkeypatch.setenv(LIBRARY_VARIABLE, str(path))
    for content, kept in ((b"", False), (b"\x7fELF..", False), (b"\x7fELF..CUDAExecutionProvider\0..", True)):
        path.write_bytes(content)
        write_checksum(path)
        target = CudaTarget()
        assert (target.library is not None) == kept
        assert ("has no CUDA kernels" in target.lowering(None)) == (not kept)  # type: ignore[arg-type]
        assert CudaTarget(native=False).library is None


def test_options_keep_plans(tmp_path: Path):
    assert cuda_options(2).items() >= {"device_id": "2", "use_tf32": "0", "enable_cuda_graph": "0"}.items()
    options = tensorrt_options(1, tmp_path / "engines")
    assert options.items() >= {"device_id": "1", "trt_fp16_enable": "False", "trt_int8_enable": "False"}.items()
    assert options["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert not any("cache" in name for name in tensorrt_options(0, None))


def test_engines_are_kept_apart_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMDEPLOY_CACHE", str(tmp_path))
    monkeypatch.delenv(TF32_VARIABLE, raising=False)
    first = engine_folder(b"one model")
    assert first is not None
    assert first.is_dir()
    assert engine_folder(b"one model") == first
    assert engine_folder(b"the same nodes, other weights") != first
    monkeypatch.setenv(TF32_VARIABLE, "1")
    assert engine_folder(b"one model") != first
    first.chmod(0o777)
    monkeypatch.delenv(TF32_VARIABLE)
    assert engine_folder(b"one model") is None  # anybody could have put an engine there
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMDEPLOY_CACHE", str(tmp_path / "file"))
    assert engine_folder(b"one model") is None


def test_tf32_is_off_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for said, told in ((None, "off"), ("1", f"{TF32_VARIABLE}=1")):
        monkeypatch.setenv(TF32_VARIABLE, "")
        monkeypatch.delenv(TF32_VARIABLE)
        if said is not None:
            monkeypatch.setenv(TF32_VARIABLE, said)
        target = TensorrtTarget()
        target.prepare(FakeRuntime(), MODEL)
        assert target.remarks(FakeSession([TENSORRT]))["tf32"] == told


class Recorded(CpuTarget):
    """The CPU in place of TensorRT: it keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(native=False)
        self.models: list[Any] = []

    def providers(self, source: Path | bytes) -> list[tuple[str, dict[str, str]]]:
        assert isinstance(source, bytes)
        self.models.append(onnx.load_from_string(source))
        return super().providers(source)


def test_tensorrt_gets_standard_ops_fixed_shapes_and_no_float64(model: Path):
    target = Recorded()
    runner = OnnxRuntimeTensorrtRunner(model, threads=1, target=target)
    plain = OnnxRuntimeRunner(model, threads=1, native=False)
    for schedule in (None, (3, 0, 5, 999)):
        for batch in (1, 3):
            ours = runner.trace(IMAGES[:batch], schedule, tensors=True)
            theirs = plain.trace(IMAGES[:batch], schedule, tensors=True)
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5, rtol=0)
            np.testing.assert_allclose(runner.infer(IMAGES[:batch], schedule), theirs.logits, atol=1e-5, rtol=0)
            for one, other in zip(ours.steps, theirs.steps, strict=True):
                np.testing.assert_array_equal(one.map, other.map)
    made = len(target.models)
    assert made == 2 * 2 * 2, "batch, schedule, trace or not"
    runner.infer(IMAGES)
    assert len(target.models) == made
    for proto in target.models:
        assert [value.name for value in proto.graph.input] == ["images"]
        assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value in {1, 3}
        assert not proto.functions
        assert all(node.domain == "" for node in proto.graph.node)
        casts = Counter(a.i for node in proto.graph.node if node.op_type == "Cast" for a in node.attribute)
        assert casts[1] > 0  # to float32
        assert casts[11] == 0  # to float64
    with pytest.raises(UsageError, match="4 reduction steps"):
        runner.infer(IMAGES, (1,))


def test_the_steps_are_fed_to_tensorrt_one_by_one(model: Path):
    runner = OnnxRuntimeTensorrtRunner(model, threads=1, target=Recorded())
    reference = OnnxRuntimeRunner(model, threads=1, native=False)
    samples = Samples(IMAGES, ("a", "b", "c"), "three", labels=np.full(3, -1))
    report = validate(reference, runner, samples, batch_sizes=(3,), schedules=(None, (8, 1, 0, 2)))
    assert report.passed
    assert {"numeric", "decisions", "model"} == {check.level for check in report.checks}


def test_a_half_precision_file_is_refused_by_tensorrt(model: Path, tmp_path: Path):
    proto = onnx.load(model)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
    entry.value = entry.value.replace('"precision":"fp32"', '"precision":"fp16"')
    onnx.save(proto, tmp_path / "half.onnx")
    with pytest.raises(UsageError, match=r"is fp16.*weakly typed.*tmdeploy build"):
        OnnxRuntimeTensorrtRunner(tmp_path / "half.onnx", target=Recorded())


@pytest.mark.parametrize("kind", [OnnxRuntimeRunner, OnnxRuntimeTensorrtRunner])
def test_a_pass_that_leaves_its_data_on_the_device(kind: Any, model: Path):
    runner = kind(model, threads=1, target=CpuTarget(native=False))
    for schedule in (None, (8, 0, 2, 1)):
        resident = runner.resident(IMAGES, schedule)
        resident()
        np.testing.assert_allclose(resident.logits(), runner.infer(IMAGES, schedule), atol=1e-6)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
@pytest.mark.parametrize("command", ["infer", "validate", "bench", "visualize"])
def test_every_command_that_runs_a_file_takes_them_and_stops(
    command: str, backend: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The installed ONNX Runtime is the CPU's."""
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64)).save(photo)
    others = {"infer": [photo], "validate": [model], "bench": [], "visualize": [photo, "-o", tmp_path / "out.png"]}
    done = run(capsys, command, model, *others[command], "--backend", backend)
    assert done.code == 3
    assert "was built without" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


def test_doctor_tries_them(monkeypatch: pytest.MonkeyPatch):
    tried: list[str] = []

    def trial(provider: str) -> str:
        tried.append(provider)
        if provider == TENSORRT:
            raise EnvironmentMissing("TensorRT is not here", remedy="Install it")
        return "1.31.1, model ran"

    monkeypatch.setattr(packages, "trial", trial)
    states = {state.name: state for state in examine().backends}
    assert tried == [CUDA, TENSORRT]
    assert (states["ONNX Runtime (CUDA)"].works, states["ONNX Runtime (TensorRT)"].works) == (True, False)
    assert states["ONNX Runtime (TensorRT)"].remedy == "Install it"


def test_a_trial_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(EnvironmentMissing, match="was built without"):
        packages.trial(CUDA)  # of the installed onnxruntime, in this process
    assert packages.reason_of(CPU) is None  # in another one, where 1 + 1 is 2
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert packages.reason_of(CPU) == "exit code 1"
