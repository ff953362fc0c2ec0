"""docker/Dockerfile.gpu on a substituted base: its instructions run; CUDA, TensorRT and the GPU are not proved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Image
from .podman import ROOT, Podman

# Too large for CI, and pinned in the same way as the rest of the lock.
_LEFT_OUT = re.compile(r"^(torch|triton|nvidia-|cuda-)")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context, without what needs nvcc (plugins/'s build) and without torch in the export lock."""
    folder = tmp_path_factory.mktemp("context")
    for name in ("cli", "tmdeploy", "plugins", "docker"):
        ignore = shutil.ignore_patterns("__pycache__", "build*" if name == "plugins" else "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", ".dockerignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "plugins" / "CMakeLists.txt").unlink(missing_ok=True)
    lock = folder / "docker" / "requirements" / "export.txt"
    blocks = re.split(r"^(?=[a-z])", lock.read_text(), flags=re.MULTILINE)
    lock.write_text("".join(block for block in blocks if not _LEFT_OUT.match(block)))
    return folder


@pytest.fixture(scope="module")
def tensorrt_base(podman: Podman, base: Image, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stand-in with a module where NVIDIA's image has TensorRT's bindings: outside of any environment."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "tensorrt.py").write_text('__version__ = "stand-in"\n')
    (folder / "Dockerfile").write_text(
        f"FROM {base.name}\nCOPY tensorrt.py /tmp/\n"
        'RUN mv /tmp/tensorrt.py "$(dirname "$(dirname "$(python3 -c \'import pip; print(pip.__file__)\')")")"\n'
    )
    podman("build", "--pull=never", "--tag", "localhost/standin/tensorrt:latest", str(folder))
    return "localhost/standin/tensorrt:latest"


@pytest.fixture(scope="module")
def gpu(podman: Podman, tensorrt_base: str, context: Path) -> Image:
    podman.build("Dockerfile.gpu", "localhost/tmdeploy:gpu", base=tensorrt_base, context=context)
    return Image(podman, "localhost/tmdeploy:gpu")


def test_every_instruction_of_the_default_target_runs(gpu: Image, fact: Callable[[str], None]) -> None:
    fact("Dockerfile.gpu: every stage run on a stand-in for NVIDIA's base; not the native build, torch, or a GPU")
    assert gpu.inspect("{{.User}}") == "10001:10001"
    assert gpu.inspect("{{json .Config.Entrypoint}}") == '["tmdeploy"]'
    assert gpu.run("--version").stdout.startswith("tmdeploy ")
    assert gpu.run("--quiet", "doctor").returncode == 0


def test_it_sees_the_bases_tensorrt_and_its_own_packages(gpu: Image) -> None:
    code = "import tensorrt, cuda.bindings, numpy; print(tensorrt.__version__, cuda.bindings.__file__, numpy.__file__)"
    version, *places = gpu.python(code).split()
    assert version == "stand-in"
    assert all(place.startswith("/opt/venv/") for place in places)


def test_the_export_target_adds_to_it(podman: Podman, gpu: Image, tensorrt_base: str, context: Path) -> None:
    podman.build("Dockerfile.gpu", "localhost/tmdeploy:export", base=tensorrt_base, context=context, target="export")
    export = Image(podman, "localhost/tmdeploy:export")
    assert export.inspect("{{.User}}") == "10001:10001"
    assert export.python("import onnxscript, safetensors, os; print(os.getuid())").strip() == "10001"
    assert gpu.run("-c", "import onnxscript", options=("--entrypoint", "python")).returncode == 1


def test_the_native_build_refuses_another_base(base: Image, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "CMakeLists.txt").touch()
    shutil.copy(ROOT / "docker" / "build-native.sh", tmp_path)
    options = ("--volume", f"{tmp_path}:/src", "--workdir", "/src", "--entrypoint", "sh")
    refused = base.run("build-native.sh", "gpu", "/tmp/native", options=(*options, "--tmpfs", "/tmp"))
    assert refused.returncode == 1
    assert "no NvInfer.h" in refused.stderr
