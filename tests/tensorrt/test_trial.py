"""What `tmdeploy doctor` says about both TensorRTs: the real TensorRT-RTX, and stand-ins for the full one."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.running import run
from tests.tensorrt.engines import needs_rtx
from tests.tensorrt.fake_builder import FakeBuilding
from tmdeploy.doctor import BackendState, examine
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.lazy import install_command
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.plugin import PtxLibrary
from tmdeploy.tensorrt.plugin.ptx import OPS
from tmdeploy.tensorrt.sdk import trial
from tmdeploy.tensorrt.sdk.flavor import Flavor, open_toolkit
from tmdeploy.tensorrt.sdk.trial import try_builder

GPU = Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)


def _state(name: str) -> BackendState:
    (state,) = (state for state in examine().backends if state.name == name)
    return state


def _install(monkeypatch: pytest.MonkeyPatch, package: str, module: object) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, module)


def _no_gpu(purpose: str) -> Gpu:
    raise EnvironmentMissing(f"{purpose} needs an NVIDIA GPU, and there is none here (no driver)", remedy="Get one")


@needs_rtx
def test_rtx_makes_a_builder_and_says_what_running_needs(monkeypatch: pytest.MonkeyPatch):
    version = open_toolkit("rtx", purpose="a test").version
    monkeypatch.setattr(trial, "find_gpu", _no_gpu)
    without = "running engines needs an NVIDIA GPU, and there is none here (no driver). Get one."
    assert _state("TensorRT-RTX") == BackendState("TensorRT-RTX", True, f"{version}, a builder was made; {without}")
    monkeypatch.setattr(trial, "find_gpu", lambda _: GPU)
    assert try_builder(Flavor.RTX) == f"{version}, a builder was made; GPU: NVIDIA L4 (sm_89)"


def test_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for package in ("tensorrt", "tensorrt_rtx"):
        _install(monkeypatch, package, None)
    done = run(capsys, "doctor", "--json", "-")
    states = {state["name"]: state for state in json.loads(done.out)["backends"]}
    for flavor, extra in (("TensorRT", "tensorrt"), ("TensorRT-RTX", "rtx")):
        assert not states[flavor]["works"]
        assert states[flavor]["remedy"] == install_command(extra)
        assert "needs the Python package" in states[flavor]["detail"]
    assert done.code == 0  # neither is needed for the default


def test_brackets_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Not taken for markup, in either column."""

    def lacks(flavor: Flavor) -> str:
        return f"works, but pip install '[{flavor.value}]'"

    monkeypatch.setattr(trial, "try_builder", lacks)
    monkeypatch.setenv("COLUMNS", "200")
    assert "pip install '[rtx]'" in run(capsys, "doctor").out


def test_full_tensorrt_needs_a_gpu_even_to_build(monkeypatch: pytest.MonkeyPatch):
    module = FakeBuilding(None)
    module.Builder = None  # type: ignore[assignment]  # is not called: without a driver it may end the process
    _install(monkeypatch, "tensorrt", module)
    monkeypatch.setattr(trial, "find_gpu", _no_gpu)
    state = _state("TensorRT")
    assert (state.works, state.remedy) == (False, "Get one")
    assert state.detail.startswith("11.4.0.106 is installed; building and running engines needs an NVIDIA GPU")


def test_full_tensorrt_and_the_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    _install(monkeypatch, "tensorrt", FakeBuilding(None))
    monkeypatch.setattr(trial, "find_gpu", lambda _: GPU)
    monkeypatch.setattr(trial, "PtxLibrary", functools.partial(PtxLibrary, tmp_path))
    made = "11.4.0.106, a builder was made; GPU: NVIDIA L4 (sm_89); "
    assert try_builder(Flavor.TENSORRT).startswith(f"{made}no ahead-of-time plugins: the CUDA kernels' PTX is not")
    for op in OPS:
        (tmp_path / f"{op}.compute_75.ptx").write_text("")
    assert _state("TensorRT") == BackendState("TensorRT", True, f"{made}PTX for the ahead-of-time plugins is here")


@pytest.mark.parametrize(
    ("version", "builder", "detail"),
    [
        ("10.12.0.36", None, "TensorRT 10.12.0.36 is not supported"),
        ("11.4.0.106", lambda _: None, "11.4.0.106 is installed, but makes no builder (it gave no reason)"),
        ("11.4.0.106", lambda _: SimpleNamespace().gone, "installed, but fails: 'types.SimpleNamespace' object has no"),
    ],
)
def test_tensorrt_that_does_not_work(version: str, builder: object, detail: str, monkeypatch: pytest.MonkeyPatch):
    module = SimpleNamespace(**{**vars(FakeBuilding(None)), "__version__": version, "Builder": builder})
    _install(monkeypatch, "tensorrt", module)
    monkeypatch.setattr(trial, "find_gpu", lambda _: GPU)
    state = _state("TensorRT")
    assert not state.works
    assert state.detail.startswith(detail)
    assert state.remedy in {install_command("tensorrt"), "pip install --force-reinstall tensorrt"}
