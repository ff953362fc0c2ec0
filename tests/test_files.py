import os
import subprocess
import sys
from pathlib import Path

import pytest

from tmdeploy.errors import ArtifactError, CheckFailed, EnvironmentMissing, TmdeployError, UsageError
from tmdeploy.files import atomic_path, check_writable, sha256, write_text


def test_success_renames(tmp_path: Path):
    target = tmp_path / "a.json"
    write_text(target, "new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert list(tmp_path.iterdir()) == [target]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "a.onnx"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="boom"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_missing_folder_and_folder_as_target_are_explained(tmp_path: Path):
    missing = tmp_path / "no" / "a.onnx"
    for action in (check_writable, lambda path: write_text(path, "")):
        with pytest.raises(ArtifactError, match=r"no/a\.onnx: cannot be written \(No such file or directory\)"):
            action(missing)
        with pytest.raises(ArtifactError, match="is a folder, not a file"):
            action(tmp_path)


def test_full_disk_is_explained_and_leaves_nothing(tmp_path: Path):
    target = tmp_path / "a.onnx"
    with pytest.raises(ArtifactError, match=r"No space left on device"), atomic_path(target):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_file_of_that_name(tmp_path: Path):
    target = tmp_path / "a.onnx"
    code = (
        "import sys, time; from pathlib import Path; from tmdeploy.files import atomic_path\n"
        f"with atomic_path(Path({str(target)!r})) as t:\n"
        "    t.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
        process.wait()
    assert not target.exists()


def test_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_errors_are_one_line_with_place_and_remedy():
    error = TmdeployError("is\n  broken", path="x.pt", remedy="Mend it.")
    assert str(error) == "x.pt: is broken. Mend it."
    assert str(TmdeployError("plain")) == "plain"


def test_exit_codes():
    codes = {CheckFailed: 1, UsageError: 2, EnvironmentMissing: 3, ArtifactError: 4, TmdeployError: 4}
    assert {kind: kind.exit_code for kind in codes} == codes


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
