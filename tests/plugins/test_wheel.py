"""What goes into a wheel; that it works when installed is for scripts/check_wheel.sh."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tmdeploy
from tests.plugins.building import need_compiler
from tmdeploy.doctor import examine
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native import build, library, wheel
from tmdeploy.native.headers import INCLUDE_VARIABLE
from tmdeploy.native.trust import checked_library

ROOT = Path(tmdeploy.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (library.REFUSAL_VARIABLE, library.LIBRARY_VARIABLE, "CXX"):
        monkeypatch.delenv(variable, raising=False)


def test_the_library_and_its_checksum(ort_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """CMake is stood in for by a copy: the fixture has run it already."""

    def copy(folder: Path, target: str, options: dict[str, str], **_: object) -> None:
        assert (target, options["TMDEPLOY_BUILD_ORT"]) == ("tmdeploy_ort", "ON")
        (folder / "onnxruntime").mkdir()
        shutil.copyfile(ort_built, folder / "onnxruntime" / library.ORT_LIBRARY)

    need_compiler()
    monkeypatch.setattr(build, "build", copy)
    assert wheel.put_library(tmp_path) is None
    made = library.packaged_library(tmp_path)
    assert checked_library(made, build="x") == made
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["lib", made.name, f"{made.name}.sha256"]


def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("CXX", "/nonexistent -m64")
    return "CXX names /nonexistent -m64, which is no program. Correct it."


def _nothing_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("PATH", str(tmp_path))
    return "building native code needs a C++17 compiler. Install g++ or clang++, or name one in CXX."


def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    def refuse(target: Path) -> Path:
        raise EnvironmentMissing("apt cannot download libonnxruntime-dev", remedy="Unpack\na release")

    need_compiler()
    monkeypatch.setattr(wheel, "find_ort_headers", lambda: None)
    monkeypatch.setattr(wheel, "download_ort_headers", refuse)
    return "apt cannot download libonnxruntime-dev. Unpack a release."


def _broken_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    need_compiler()
    (tmp_path / "onnxruntime_c_api.h").write_text("#error no headers\n")
    monkeypatch.setenv(INCLUDE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(build, "build", lambda *_, **__: (_ for _ in ()).throw(build.BuildError("no\nheaders")))
    return "no headers"


def _unwanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv(library.REFUSAL_VARIABLE, "0")
    return "TMDEPLOY_NATIVE is 0"


@pytest.mark.parametrize("lack", [_no_compiler, _nothing_on_path, _no_network, _broken_headers, _unwanted])
def test_without_it_one_line_says_why(lack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reason = lack(monkeypatch, tmp_path)
    target = tmp_path / "native"
    target.mkdir()
    assert wheel.put_library(target) == reason
    assert library.packaged_reason(target).read_text() == f"{reason}\n"
    assert not library.packaged_library(target).exists()
    if lack is not _unwanted:
        monkeypatch.setenv(library.REFUSAL_VARIABLE, "1")
        with pytest.raises((EnvironmentMissing, build.BuildError)):
            wheel.put_library(target)


def test_tools_are_asked_for_only_where_they_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    need_compiler()
    assert wheel.requirements() == ["cmake>=3.18", "ninja"]
    monkeypatch.setenv("CXX", "g++ -m64")
    assert wheel.requirements() == ["cmake>=3.18", "ninja"]
    _no_compiler(monkeypatch, tmp_path)
    assert wheel.requirements() == []
    monkeypatch.delenv("CXX")
    _unwanted(monkeypatch, tmp_path)
    assert wheel.requirements() == []


def test_doctor_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "_PACKAGE", tmp_path)
    monkeypatch.setattr(library.packaged_reason, "__defaults__", (tmp_path,))
    library.packaged_reason().write_text("no compiler.\n")
    state = next(state for state in examine().backends if state.name == "native ops")
    assert state.detail == "no library (the wheel was built without one: no compiler): function bodies run instead"
    assert state.remedy == "Mend that, and install tmdeploy from its sources again"


def test_the_build_needs_nothing_that_is_not_there_yet():
    """setup.py runs where only setuptools is installed."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tmdeploy.native.wheel"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_build_takes_from_the_tree():
    project, manifest = ((ROOT / name).read_text() for name in ("pyproject.toml", "MANIFEST.in"))
    assert "native/lib" not in project  # a library that lies in the tree may be of any age
    assert {"graft plugins", "prune tmdeploy/native/lib"} <= set(manifest.splitlines())
    lists = "".join(path.read_text() for path in (ROOT / "plugins").rglob("CMakeLists.txt"))
    assert re.findall(r"-m(?:arch|tune|cpu)=\S+|-Ofast|-ffast-math", lists) == []
