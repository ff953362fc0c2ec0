"""Which native libraries are loaded, and that nothing else is: owner, mode, folders above, checksum, where from."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tmdeploy.errors import EnvironmentMissing, UsageError
from tmdeploy.native import library, openvino, trust
from tmdeploy.native.trust import checked_library, checksum_path, make_private_folder, write_checksum
from tmdeploy.system.cache import CACHE_VARIABLE, user_cache

IMAGE = EXAMPLES / "digits" / "3_0.png"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    for variable in (library.LIBRARY_VARIABLE, library.REFUSAL_VARIABLE, CACHE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(cache: Path, ort_built: Path) -> Path:
    """A library that is in order, where tmdeploy finds it by itself."""
    path = library.cache_folder() / library.ORT_LIBRARY
    make_private_folder(path.parent)
    shutil.copyfile(ort_built, path)
    path.chmod(0o644)
    write_checksum(path)
    return path


def _give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it belong to somebody else."""
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:  # let us be somebody else, whose tmdeploy is root's
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        monkeypatch.setattr(trust, "_CODE", Path("/usr"))


def test_what_is_in_order_is_loaded(place: Path, digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    found = library.ort_library()
    assert found is not None
    assert found.path == place.resolve()
    done = run(capsys, "infer", digits_onnx, IMAGE, "--json", "-")
    assert done.code == 0, done.err
    assert f"native ({place.resolve()})" in done.out


def _foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _give_away(path, monkeypatch)


def _foreign_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _give_away(path.parent, monkeypatch)


def _world_writable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o777)


def _group_writable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o664)


def _writable_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.parent.chmod(0o777)


def _truncated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _without_checksum(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checksum_path(path).unlink()


def _empty_checksum(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checksum_path(path).write_bytes(b"")


def _broken_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone.so")


def _folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[Callable[[Path, pytest.MonkeyPatch], None], str] = {
    _foreign: "it belongs to user ",
    _foreign_folder: "its folder ",
    _world_writable: "it is writable by others (mode 0777)",
    _group_writable: "it is writable by others (mode 0664)",
    _writable_folder: "is writable by others (mode 0777)",
    _truncated: "it is truncated or changed, by libtmdeploy_ort.so.sha256. Build it again with tmdeploy plugins build",
    _changed: "it is truncated or changed",
    _without_checksum: "there is no libtmdeploy_ort.so.sha256 beside it. Build it again with tmdeploy plugins build",
    _empty_checksum: "it is truncated or changed",
    _broken_link: "No such file or directory",
    _folder: "it is no file",
    _pipe: "it is no file",
}


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_is_not_is_refused_in_one_line(
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    place: Path,
    digits_onnx: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    spoil(place, monkeypatch)
    done = run(capsys, "infer", digits_onnx, IMAGE)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert done.err.startswith(f"error: the native library {place} is not loaded: ")
    assert BROKEN[spoil] in done.err
    assert done.err.endswith(", or run with TMDEPLOY_NATIVE=0.\n")


def test_every_command_that_loads_it_refuses(
    place: Path,
    digits_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    place.chmod(0o666)
    fast = ("--duration", "0.01s", "--rounds", 3, "--iterations", 1, "--no-memory")
    for arguments in (
        ("inspect", digits_onnx),
        ("bench", digits_onnx, *fast),
        ("validate", digits_onnx, digits_onnx, "--data", IMAGE),
        ("visualize", digits_onnx, IMAGE, "-o", tmp_path / "out.png"),
    ):
        done = run(capsys, *arguments)
        assert (done.code, "writable by others (mode 0666)" in done.err) == (3, True), (arguments, done.err)
    rows = json.loads(run(capsys, "plugins", "list", "--json", "-").out)["libraries"]
    (text,) = [row["state"] for row in rows if row["path"] == str(place)]
    assert text.startswith("refused: it is writable by others (mode 0666). If it is yours, chmod go-w ")
    done = run(capsys, "doctor", "--json", "-")
    (state,) = [row for row in json.loads(done.out)["backends"] if row["name"] == "native ops"]
    assert (done.code, state["works"]) == (0, False)
    assert "writable by others (mode 0666)" in state["detail"]
    assert state["remedy"] == f"If it is yours, chmod go-w {place}, or run with TMDEPLOY_NATIVE=0"
    monkeypatch.setenv(library.REFUSAL_VARIABLE, "1")  # so that it is put back
    assert run(capsys, "infer", digits_onnx, IMAGE, "--no-native").code == 0


def test_openvino_asks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "extension.so"
    path.write_bytes(b"code")
    monkeypatch.setenv(openvino.OPENVINO_VARIABLE, str(path))
    with pytest.raises(EnvironmentMissing, match=r"no extension\.so\.sha256 beside it.*plugins build --openvino"):
        openvino.openvino_library()
    write_checksum(path)
    path.chmod(0o602)
    with pytest.raises(EnvironmentMissing, match="writable by others"):
        openvino.openvino_library()


def test_a_link_is_judged_by_where_it_leads(place: Path, tmp_path: Path):
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    real = open_folder / place.name
    for path in (place, checksum_path(place)):
        path.rename(open_folder / path.name)
    place.symlink_to(real)
    assert checked_library(place, build="x") == real.resolve()
    open_folder.chmod(0o777)
    with pytest.raises(EnvironmentMissing, match="its folder .*open is writable by others"):
        checked_library(place, build="x")
    open_folder.chmod(0o1777)  # as /tmp: others cannot exchange it
    assert checked_library(place, build="x") == real.resolve()


def test_who_can_write_our_code_is_trusted(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package that pip installed under a umask of 002, or that belongs to who looks after a shared environment."""
    code = tmp_path / "site" / "tmdeploy" / "native" / "trust.py"
    ours = code.parent / "lib" / place.name
    ours.parent.mkdir(parents=True)
    code.write_text("")
    shutil.copyfile(place, ours)
    write_checksum(ours)
    for path in (ours.parent, code.parent, code.parent.parent.parent):
        path.chmod(0o775)
    for path in (ours, code):
        path.chmod(0o664)
    with pytest.raises(EnvironmentMissing, match="writable by others"):
        checked_library(ours, build="x")
    monkeypatch.setattr(trust, "_CODE", code)
    assert checked_library(ours, build="x") == ours.resolve()
    if os.geteuid() == 0:
        for path in (ours, ours.parent, code):
            os.chown(path, 4242, -1)
        assert checked_library(ours, build="x") == ours.resolve()
    ours.chmod(0o666)
    with pytest.raises(EnvironmentMissing, match="mode 0666"):
        checked_library(ours, build="x")


def test_what_is_built_is_in_order_under_any_umask(ort_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trust, "_CODE", Path("/usr"))
    content = ort_built.read_bytes()

    def build(folder: Path, *_: object, **__: object) -> None:
        (folder / "onnxruntime").mkdir()
        (folder / "onnxruntime" / library.ORT_LIBRARY).write_bytes(content)

    monkeypatch.setattr("tmdeploy.native.build.build", build)
    monkeypatch.setattr("tmdeploy.native.build.find_ort_headers", lambda: tmp_path)
    from tmdeploy.native.build import build_ort

    before = os.umask(0)
    try:
        for _ in range(2):
            made = build_ort()
            assert checked_library(made, build="x") == made.resolve()
            made.chmod(0o666)  # the second time there is one that somebody else could write
            if os.geteuid() == 0:
                os.chown(made, 4242, -1)
    finally:
        os.umask(before)
    assert checksum_path(made).read_text().endswith(f"  {library.ORT_LIBRARY}\n")


def test_a_folder_that_others_can_write_is_refused_before_anything_is_built(tmp_path: Path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(EnvironmentMissing, match=r"a library there would not be loaded: .*mode 0777"):
        make_private_folder(tmp_path / "open" / "new")


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG specification is Linux's")
def test_relative_cache_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for relative in ("cache", ".", "", "./x"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert user_cache() == tmp_path / "home" / ".cache" / "tmdeploy"
        assert library.cache_folder().parent == user_cache()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert user_cache() == tmp_path / "mine"
    monkeypatch.setenv(CACHE_VARIABLE, "mine")
    with pytest.raises(UsageError, match=r"TMDEPLOY_CACHE is mine, a relative path\. Write it in full"):
        user_cache()
