"""`tmdeploy plugins` and OpenVINO's extension library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.running import run
from tmdeploy.native import openvino as native


def test_the_list_says_what_is_used(openvino_built: Path, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    monkeypatch.setenv(native.OPENVINO_VARIABLE, str(openvino_built))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    listed = json.loads(run(capsys, "plugins", "list", "--json", "-").out)["libraries"]
    states = {entry["path"]: entry["state"] for entry in listed if entry["runtime"] == "OpenVINO"}
    assert states == {
        str(openvino_built): "used",
        str(native.built_folder() / native.OPENVINO_LIBRARY): "absent",
    }


def test_what_is_built_is_tried_before_it_is_put_in_place(
    openvino_built: Path, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
):
    """CMake is stood in for by a copy: the fixture has run it already, with the same options."""
    content = openvino_built.read_bytes()

    def build(folder: Path, target: str, options: dict[str, str], **_: object) -> None:
        assert target == "tmdeploy_openvino"
        assert (Path(options["OpenVINO_DIR"]) / "OpenVINOConfig.cmake").is_file()
        (folder / "openvino").mkdir()
        (folder / "openvino" / native.OPENVINO_LIBRARY).write_bytes(content)

    monkeypatch.setattr("tmdeploy.native.build.build", build)
    output = tmp_path / "out"
    done = run(capsys, "plugins", "build", "--openvino", "--output", output)
    assert done.code == 0, done.err
    assert f"export {native.OPENVINO_VARIABLE}=" in done.out
    assert (output / native.OPENVINO_LIBRARY).read_bytes() == content

    content = b"no library"
    done = run(capsys, "plugins", "build", "--openvino", "--output", tmp_path / "other")
    assert done.code == 4
    assert "was built, but does not load" in done.err
    assert not list((tmp_path / "other").iterdir())


def test_without_cmake(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    done = run(capsys, "plugins", "build", "--openvino", "--output", tmp_path)
    assert done.code == 3
    assert "pip install cmake" in done.err
