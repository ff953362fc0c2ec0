"""Building and finding from the command line; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.plugins.building import need_compiler
from tmdeploy.native import headers, library
from tmdeploy.native.build import BuildError, load_problem
from tmdeploy.native.trust import write_checksum


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in (library.LIBRARY_VARIABLE, library.REFUSAL_VARIABLE, headers.INCLUDE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_list_says_what_is_where(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    place = library.cache_folder() / library.ORT_LIBRARY
    assert tmp_path in place.parents
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not a library")
    write_checksum(place)
    done = run(capsys, "plugins", "list", "--json", "-")
    assert done.code == 0, done.err
    rows = [row for row in json.loads(done.out)["libraries"] if row["runtime"] == "ONNX Runtime"]
    states = {row["path"]: row["state"] for row in rows}
    assert len(states) == 2
    assert "cannot open" in states[str(place)] or "invalid" in states[str(place)] or "short" in states[str(place)]


def test_missing_tools_and_headers_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(headers, "_SYSTEM", ())
    done = run(capsys, "plugins", "build")
    assert done.code == 3
    assert "needs ONNX Runtime's C headers. Add --fetch-headers" in done.err
    assert done.err.count("\n") == 1

    monkeypatch.setenv(headers.INCLUDE_VARIABLE, str(tmp_path))
    done = run(capsys, "plugins", "build")
    assert (done.code, "there is no onnxruntime_c_api.h" in done.err) == (3, True)

    (tmp_path / headers.HEADER).write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(capsys, "plugins", "build")
    assert done.code == 3
    assert "needs CMake. Install it with: pip install cmake" in done.err

    done = run(capsys, "plugins", "build", "--fetch-headers", "-o", tmp_path)  # headers are there: no download
    assert (done.code, "needs CMake" in done.err) == (3, True)


def test_headers_are_found_in_every_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for layout in (".", "onnxruntime", "onnxruntime/core/session"):
        folder = tmp_path / "sdk" / layout
        folder.mkdir(parents=True, exist_ok=True)
        (folder / headers.HEADER).write_text("")
        monkeypatch.setenv(headers.INCLUDE_VARIABLE, str(tmp_path / "sdk"))
        assert headers.find_ort_headers() == folder
        (folder / headers.HEADER).unlink()
    monkeypatch.delenv(headers.INCLUDE_VARIABLE)
    kept = headers.downloaded_headers()
    kept.mkdir(parents=True)
    (kept / headers.HEADER).write_text("")
    assert headers.find_ort_headers() == kept


def test_a_failed_compilation_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    need_compiler()
    (tmp_path / headers.HEADER).write_text("#error these are no headers\n")
    monkeypatch.setenv(headers.INCLUDE_VARIABLE, str(tmp_path))
    target = tmp_path / "out"
    done = run(capsys, "plugins", "build", "-o", target)
    assert (done.code, "failed: " in done.err) == (4, True)
    assert list(target.iterdir()) == []


def test_load_problem_names_the_reason(ort_built: Path, tmp_path: Path):
    assert load_problem(ort_built) is None
    assert load_problem(tmp_path / "absent.so") is not None
    assert BuildError("it").exit_code == 4


def test_no_native_reaches_the_library(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(library.REFUSAL_VARIABLE, "1")  # so that it is put back
    run(capsys, "inspect", "--no-native", tmp_path / "absent.onnx")
    assert library.ort_library() is None
