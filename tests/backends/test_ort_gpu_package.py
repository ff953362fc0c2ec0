"""What the real onnxruntime-gpu does without a GPU: it is asked for one, and we say that there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import tmdeploy
from tests.backends.ort_gpu_package import (
    environment,
    gpu_package,
    provider_library,
    stand_ins_for_cuda,
    stand_ins_for_tensorrt,
)
from tests.export.exporting import export_module
from tests.plugins.building import built, built_ort
from tests.vits import tiny_images, tiny_vit
from tmdeploy.backends.onnxruntime.gpu import cuda_options
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.backends.onnxruntime.tensorrt import tensorrt_options
from tmdeploy.native.headers import find_ort_headers
from tmdeploy.native.library import LIBRARY_VARIABLE, has_cuda_kernels
from tmdeploy.ops import DOMAIN, VERSION

METHODS = ("tome", "evit")
_DESCRIBE = """
import json, sys
from pathlib import Path
from tmdeploy.backends import open_runner
from tmdeploy.backends.onnxruntime.placement import Placement
described = {}
for path in sys.argv[1:]:
    runner = open_runner(Path(path), backend="onnxruntime-cuda")
    ops = Placement.of(runner._session).ops
    described[path] = {**runner.facts.described(), "ops": {name: dict(count) for name, count in ops.items()}}
print(json.dumps(described))
"""


@pytest.fixture(scope="module")
def package() -> Path:
    return gpu_package()


@pytest.fixture(scope="module")
def stand_ins(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins_for_cuda(package, tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for method in METHODS:
        layers, amount = (None, {"r": 8}) if method == "tome" else ([1, 2], {})
        folder = tmp_path_factory.mktemp(method)
        export_module(tmdeploy.patch(tiny_vit(), method, layers=layers, **amount), folder)
        found[method] = folder / "tiny.onnx"
    return found


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.new("RGB", (64, 64)).save(path)
    return path


@pytest.fixture(scope="module")
def emulated() -> Path:
    """The library with the wrapper for the CUDA provider, around kernels that compute in host memory."""
    headers = find_ort_headers()
    if headers is None:
        pytest.skip("no ONNX Runtime headers: tmdeploy plugins build --fetch-headers")
    options = {"TMDEPLOY_BUILD_CUDA": "ON", "TMDEPLOY_CUDA_EMULATOR_ONLY": "ON"}
    options |= {"TMDEPLOY_BUILD_ORT": "ON", "TMDEPLOY_ORT_INCLUDE": str(headers)}
    library = built("tmdeploy_ort", "onnxruntime/libtmdeploy_ort.so", **options)
    assert has_cuda_kernels(library)
    return library


def _run(command: list[object], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    parts = [str(part) for part in command]
    return subprocess.run(parts, env=variables, capture_output=True, text=True, timeout=300, check=False)


def _tmdeploy(variables: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    script = "import sys, tmdeploy_cli; tmdeploy_cli.main(sys.argv[1:])"
    return _run([sys.executable, "-c", script, *arguments], variables)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_without_cuda_nothing_runs_on_the_cpu_instead(
    backend: str, package: Path, models: dict[str, Path], photo: Path
):
    done = _tmdeploy(environment(package), "infer", models["tome"], photo, "--backend", backend, "--json", "-")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "ExecutionProvider does not start (lib" in line
    assert "cannot open shared object file" in line
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in line


def test_without_a_device_cudas_reason_is_told(package: Path, stand_ins: Path, models: dict[str, Path], photo: Path):
    variables = environment(package, stand_ins, STAND_IN_WITHOUT_GPU="1")
    done = _tmdeploy(variables, "infer", models["tome"], photo, "--backend", "onnxruntime-cuda")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "CUDA failure 100: no CUDA-capable device is detected" in line
    assert "Run it on a machine with an NVIDIA GPU" in line


def test_without_cudnn_it_is_named_when_it_is_first_needed(package: Path, stand_ins: Path, photo: Path, tmp_path: Path):
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 64, 64])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", None])
    weight = numpy_helper.from_array(np.ones((2, 3, 64, 64), np.float32), "weight")
    nodes = [helper.make_node("Conv", ["images", "weight"], ["y"]), helper.make_node("Flatten", ["y"], ["logits"])]
    graph = helper.make_graph(nodes, "patch", [images], [logits], [weight])
    model = tmp_path / "patch.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), model)
    done = _tmdeploy(environment(package, stand_ins), "infer", model, photo, "--backend", "onnxruntime-cuda")
    assert done.returncode == 3, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "cuDNN is unavailable" in line
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in line


def test_names_of_options_are_those_of_the_providers(package: Path):
    for name, options in (
        ("cuda", cuda_options(0)),
        ("tensorrt", tensorrt_options(0, Path("/engines/model"))),
    ):
        content = provider_library(package, name).read_bytes()
        assert [option for option in options if option.encode() not in content] == []


def test_the_cuda_provider_takes_these_options_and_no_others(package: Path, stand_ins: Path, models: dict[str, Path]):
    script = """
import json, sys, onnxruntime
onnxruntime.set_default_logger_severity(4)
providers = [("CUDAExecutionProvider", json.loads(sys.argv[2]))]
session = onnxruntime.InferenceSession(sys.argv[1], providers=providers, enable_fallback=0)
print(json.dumps(session.get_provider_options()["CUDAExecutionProvider"]))
"""
    options = cuda_options(0)
    command = [sys.executable, "-c", script, models["tome"]]
    taken = _run([*command, json.dumps(options)], environment(package, stand_ins))
    assert taken.returncode == 0, taken.stderr
    assert json.loads(taken.stdout.splitlines()[-1]).items() >= options.items()
    refused = _run([*command, json.dumps({**options, "use_tf64": "0"})], environment(package, stand_ins))
    assert refused.returncode != 0
    assert 'Unknown provider option: "use_tf64"' in refused.stderr


def test_the_tensorrt_provider_takes_these_options_and_no_others(
    package: Path, stand_ins: Path, models: dict[str, Path], tmp_path: Path
):
    script = """
import json, sys, onnxruntime
providers = [("TensorrtExecutionProvider", json.loads(sys.argv[2]))]
onnxruntime.InferenceSession(sys.argv[1], providers=providers, enable_fallback=0)
"""
    variables = environment(package, stand_ins, stand_ins_for_tensorrt(package, tmp_path))
    options = tensorrt_options(0, tmp_path / "engines" / "model")
    said = {}
    for name, changed in (("ours", {}), ("unknown", {"trt_fp61_enable": "True"}), ("value", {"trt_fp16_enable": "0"})):
        command = [sys.executable, "-c", script, models["tome"], json.dumps({**options, **changed})]
        said[name] = _run(command, variables).stderr
    assert "Invalid TensorRT EP option: trt_fp61_enable" in said["unknown"]
    assert "'trt_fp16_enable' should be 'True' or 'False'" in said["value"]
    # Past its options it wants the folder of the engines, which would be there otherwise.
    assert f"cannot create directory: No such file or directory [{tmp_path / 'engines' / 'model'}]" in said["ours"]


def test_the_cpu_of_the_gpu_package_runs_the_native_library(package: Path, models: dict[str, Path]):
    library = built_ort()
    script = """
import json, sys, onnxruntime
from pathlib import Path
from tests.vits import tiny_images
from tmdeploy.backends import open_runner
runner = open_runner(Path(sys.argv[1]), threads=1)
assert "CUDAExecutionProvider" in onnxruntime.get_available_providers()
print(json.dumps([runner.facts.lowering, runner.infer(tiny_images(2).numpy()).tolist()]))
"""
    done = _run(
        [sys.executable, "-c", script, models["tome"]], environment(package, **{LIBRARY_VARIABLE: str(library)})
    )
    assert done.returncode == 0, done.stderr
    lowering, logits = json.loads(done.stdout.splitlines()[-1])
    assert lowering == f"native ({library})"
    ours = OnnxRuntimeRunner(models["tome"], threads=1, native=False).infer(tiny_images(2).numpy())
    np.testing.assert_allclose(np.array(logits, np.float32), ours, atol=1e-5, rtol=0)


def _described(package: Path, stand_ins: Path, models: dict[str, Path], library: Path | None) -> dict[str, dict]:
    variables = {"TMDEPLOY_NATIVE": "0"} if library is None else {LIBRARY_VARIABLE: str(library)}
    done = _run([sys.executable, "-c", _DESCRIBE, *models.values()], environment(package, stand_ins, **variables))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {method: found[str(path)] for method, path in models.items()}


def test_function_bodies_run_on_the_gpu_but_for_their_shapes(package: Path, stand_ins: Path, models: dict[str, Path]):
    for method, facts in _described(package, stand_ins, models, None).items():
        assert facts["backend"] == "onnxruntime-cuda"
        assert facts["lowering"] == "portable (function bodies)"
        assert "copied_to_the_cpu_for" not in facts, method
        assert facts["ops"]["CUDAExecutionProvider"]["TopK"] > 0
        assert facts["placement"].startswith("nodes: ")
        assert "on CUDA" in facts["placement"]


def test_a_library_without_cuda_kernels_is_left_out(package: Path, stand_ins: Path, models: dict[str, Path]):
    library = built_ort()
    assert not has_cuda_kernels(library)
    for facts in _described(package, stand_ins, models, library).values():
        assert "the native library has no CUDA kernels: tmdeploy plugins build --ort --cuda" in facts["lowering"]
        assert not any("tmdeploy::" in op for ops in facts["ops"].values() for op in ops)


def test_a_library_with_cuda_kernels_keeps_the_steps_on_the_gpu(
    package: Path, stand_ins: Path, models: dict[str, Path], emulated: Path
):
    for method, facts in _described(package, stand_ins, models, emulated).items():
        assert facts["lowering"] == f"native CUDA ({emulated})"
        on_gpu = {op: count for op, count in facts["ops"]["CUDAExecutionProvider"].items() if "::" in op}
        plan, steps = ("TokenMatch", 4) if method == "tome" else ("TokenSelect", 2)
        assert on_gpu == {f"tmdeploy::{plan}": steps, "tmdeploy::TokenReduce": steps}
        # Whatever else is there computes the shape of an Expand or Reshape.
        assert set(facts["ops"].get("CPUExecutionProvider", {})) <= {"Concat"}


def test_the_ops_compute_the_same_in_the_cuda_provider(package: Path, stand_ins: Path, emulated: Path, tmp_path: Path):
    """Its arguments, shapes, types and places in memory are those the kernels expect."""
    generator = np.random.default_rng(0)
    inputs = {name: generator.standard_normal((2, 17, 8)).astype(np.float32) for name in ("metric", "x")}
    np.savez(tmp_path / "inputs.npz", slots=np.arange(12), **inputs)
    nodes = [
        helper.make_node("TokenMatch", ["metric", "slots"], ["map", "index", "sim"], domain=DOMAIN),
        helper.make_node("TokenReduce", ["x", "map", "index"], ["y", "wsum"], domain=DOMAIN),
    ]
    shapes = {"metric": (TensorProto.FLOAT, 3), "slots": (TensorProto.INT64, 1), "x": (TensorProto.FLOAT, 3)}
    values = [helper.make_tensor_value_info(name, kind, [None] * rank) for name, (kind, rank) in shapes.items()]
    outputs = {"map": TensorProto.INT32, "index": TensorProto.INT32, "y": TensorProto.FLOAT, "wsum": TensorProto.FLOAT}
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(nodes, "step", values, results)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "step.onnx")
    script = """
import sys
import numpy as np
from pathlib import Path
from tmdeploy.backends.onnxruntime.gpu import CudaTarget
from tmdeploy.backends.onnxruntime.placement import Placement
from tmdeploy.backends.onnxruntime.session import CpuTarget, make_session
folder = Path(sys.argv[1])
feeds = dict(np.load(folder / "inputs.npz"))
cpu, cuda = (make_session(folder / "step.onnx", path=folder, target=target) for target in (CpuTarget(), CudaTarget()))
assert Placement.of(cuda).on("CUDAExecutionProvider") == 2
for ours, theirs in zip(cuda.run(None, feeds), cpu.run(None, feeds), strict=True):
    np.testing.assert_array_equal(ours, theirs)
    assert ours.any()
print("same")
"""
    variables = environment(package, stand_ins, **{LIBRARY_VARIABLE: str(emulated)})
    done = _run([sys.executable, "-c", script, tmp_path], variables)
    assert (done.returncode, done.stdout.strip()) == (0, "same"), done.stderr
