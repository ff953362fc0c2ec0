"""`tmdeploy plugins` and what it builds with nvcc; nothing is downloaded."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.plugins.cuda.building import need
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native import cuda, headers, library, tensorrt, tensorrt_headers

REAL_ORT_HEADERS = headers.find_ort_headers()
REAL_CACHE = tensorrt_headers.downloaded_headers()


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(tensorrt_headers.ROOT_VARIABLE, raising=False)
    monkeypatch.delenv(cuda.NVCC_VARIABLE, raising=False)
    monkeypatch.setattr(tensorrt_headers, "_SYSTEM", ())


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands for nvcc where it is found and not run."""
    program = tmp_path / "toolkit" / "nvcc"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv(cuda.NVCC_VARIABLE, str(program))
    return program


def test_without_nvcc(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cuda, "_PLACE", str(tmp_path))
    done = run(capsys, "plugins", "build", "--tensorrt", "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "needs nvcc. Install the CUDA toolkit, or name its nvcc in CUDACXX" in done.err
    monkeypatch.setenv(cuda.NVCC_VARIABLE, str(tmp_path / "nvcc"))
    done = run(capsys, "plugins", "build", "--tensorrt", "-o", tmp_path / "out")
    assert (done.code, "which is no program" in done.err) == (3, True)
    done = run(capsys, "plugins", "build", "--ort", "--cuda", "-o", tmp_path / "out")
    assert (done.code, "which is no program" in done.err) == (3, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("nvcc")
def test_without_headers(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(capsys, "plugins", "build", "--tensorrt", "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "needs TensorRT's headers. Add --fetch-headers" in done.err
    monkeypatch.setenv(tensorrt_headers.ROOT_VARIABLE, str(tmp_path))
    done = run(capsys, "plugins", "build", "--tensorrt", "--fetch-headers", "-o", tmp_path / "out")
    assert (done.code, "where there is no NvInferRuntime.h" in done.err) == (3, True)
    assert not (tmp_path / "out").exists()


def test_headers_are_found_in_every_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensorrt_headers.find_tensorrt_headers() is None
    kept = tensorrt_headers.downloaded_headers()
    assert tmp_path in kept.parents
    for folder in (kept, tmp_path / "system" / "include" / "x86_64-linux-gnu", tmp_path / "sdk" / "include"):
        folder.mkdir(parents=True)
        (folder / tensorrt_headers.HEADER).write_text("")
    assert tensorrt_headers.find_tensorrt_headers() == kept
    monkeypatch.setattr(tensorrt_headers, "_SYSTEM", (str(tmp_path / "system"),))
    assert tensorrt_headers.find_tensorrt_headers() == tmp_path / "system" / "include" / "x86_64-linux-gnu"
    monkeypatch.setenv(tensorrt_headers.ROOT_VARIABLE, str(tmp_path / "sdk"))
    assert tensorrt_headers.find_tensorrt_headers() == tmp_path / "sdk" / "include"


def test_another_wheel_is_not_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "kernel_lens-2.0.1-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(EnvironmentMissing, match="is not the file that was checked"):
        tensorrt_headers._unpack(wheel, tmp_path / "headers")
    assert not (tmp_path / "headers").exists()


def test_architectures(capsys: pytest.CaptureFixture[str], nvcc: Path) -> None:
    assert cuda.cuda_options(None) == {"CMAKE_CUDA_COMPILER": str(nvcc)}
    # the oldest as PTX too, for GPUs newer than the list
    assert cuda.cuda_options("90, 75,100")["CMAKE_CUDA_ARCHITECTURES"] == "75;90-real;100-real"
    for wrong in ("8.0", "sm_80", "75,", ""):
        done = run(capsys, "plugins", "build", "--tensorrt", "--cuda-arch", wrong)
        assert (done.code, "is no compute capability" in done.err) == (2, True)
    done = run(capsys, "plugins", "build", "--ort", "--cuda-arch", "80")
    assert (done.code, "Add --tensorrt" in done.err) == (2, True)
    done = run(capsys, "plugins", "build", "--openvino", "--cuda")
    assert (done.code, "Add --ort" in done.err) == (2, True)


@pytest.mark.usefixtures("nvcc")
def test_what_is_built_is_tried_before_it_is_put_in_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CMake is stood in for by a small library."""
    kept = tensorrt_headers.downloaded_headers()
    kept.mkdir(parents=True)
    (kept / tensorrt_headers.HEADER).write_text("")
    source = tmp_path / "library.c"

    def build(folder: Path, target: str, options: dict[str, str], **_: object) -> None:
        assert target == "tmdeploy_tensorrt"
        assert options["TMDEPLOY_TENSORRT_INCLUDE"] == str(kept)
        (folder / "tensorrt").mkdir()
        made = folder / "tensorrt" / tensorrt.TENSORRT_LIBRARY
        subprocess.run([need("gcc"), "-shared", "-fPIC", source, "-o", made], check=True)

    monkeypatch.setattr("tmdeploy.native.build.build", build)
    place = tensorrt.tensorrt_libraries()[0].path
    source.write_text("int other(void) { return 0; }\n")
    done = run(capsys, "plugins", "build", "--tensorrt")
    assert (done.code, "was built, but does not load" in done.err) == (4, True)
    assert not place.exists()
    assert _listed(capsys) == (str(place), "absent")

    source.write_text("int getCreators(void) { return 0; }\n")
    done = run(capsys, "plugins", "build", "--tensorrt")
    assert done.code == 0, done.err
    assert f"--plugin {place}" in done.out
    assert _listed(capsys) == (str(place), "loads; for tmdeploy build --plugin")

    place.write_bytes(b"no library")
    assert "truncated or changed, by libtmdeploy_tensorrt.so.sha256" in _listed(capsys)[1]


@pytest.mark.slow
def test_a_real_build(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One architecture, with the kernels; needs no GPU."""
    need("cmake")
    need("nvcc")
    if not (REAL_CACHE / tensorrt_headers.HEADER).is_file():
        pytest.skip("no TensorRT headers: tmdeploy plugins build --tensorrt --fetch-headers")
    monkeypatch.setenv(tensorrt_headers.ROOT_VARIABLE, str(REAL_CACHE))
    done = run(capsys, "plugins", "build", "--tensorrt", "--cuda-arch", "75", "-o", tmp_path, "--json", "-")
    assert done.code == 0, done.err
    made = tmp_path / tensorrt.TENSORRT_LIBRARY
    assert json.loads(done.out)["built"] == [str(made)]
    symbols = subprocess.run([need("nm"), "-D", "--defined-only", made], capture_output=True, text=True, check=True)
    assert re.findall(r" T (\w+)", symbols.stdout) == ["getCreators", "setLoggerFinder"]
    assert b"sm_75" in made.read_bytes()  # the kernels are in it


@pytest.mark.slow
def test_a_real_build_for_the_cuda_provider(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads in the CPU build of ONNX Runtime too: `plugins build` tries that before it puts the library in place."""
    need("cmake")
    need("nvcc")
    if REAL_ORT_HEADERS is None:
        pytest.skip("no ONNX Runtime headers: tmdeploy plugins build --fetch-headers")
    monkeypatch.setenv(headers.INCLUDE_VARIABLE, str(REAL_ORT_HEADERS))
    done = run(capsys, "plugins", "build", "--ort", "--cuda", "--cuda-arch", "75", "-o", tmp_path)
    assert done.code == 0, done.err
    content = (tmp_path / library.ORT_LIBRARY).read_bytes()
    assert b"sm_75" in content
    assert b"CUDAExecutionProvider" in content
    needed = subprocess.run([need("readelf"), "-d", tmp_path / library.ORT_LIBRARY], capture_output=True, check=True)
    assert b"libcuda" not in needed.stdout  # the runtime is inside, the driver is opened when a kernel is launched


def _listed(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    libraries = json.loads(run(capsys, "plugins", "list", "--json", "-").out)["libraries"]
    (row,) = [row for row in libraries if row["runtime"] == "TensorRT"]
    return row["path"], row["state"]
