import os
import subprocess
import sys
from pathlib import Path

import pytest

from tmdeploy.errors import ArtifactError, CheckFailed, EnvironmentMissing, TmdeployError, UsageError
from tmdeploy.system.files import atomic_path, check_outputs, check_writable, make_folder, sha256, write_text


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
    for action in (check_writable, lambda path: write_text(path, "")):
        for missing in ("no/a.onnx", "no/../a.onnx"):
            with pytest.raises(ArtifactError, match=r"a\.onnx: cannot be written \(No such file or directory\)"):
                action(tmp_path / missing)
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
        "import sys, time; from pathlib import Path; from tmdeploy.system.files import atomic_path\n"
        f"with atomic_path(Path({str(target)!r})) as t:\n"
        "    t.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
        process.wait()
    assert not target.exists()


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path):
    target = tmp_path / "a.onnx"
    foreign = tmp_path / ".a-notes.onnx"
    foreign.touch()
    code = (
        "import os; from pathlib import Path; from tmdeploy.system.files import atomic_path\n"
        f"with atomic_path(Path({str(target)!r})) as t:\n"
        "    print(t, flush=True); os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.is_file()
    with atomic_path(tmp_path / "b.onnx"):
        assert left.is_file()  # another target's
    alive = left.with_name(left.name.replace(left.name.split("-")[1], str(os.getppid())))
    alive.touch()
    write_text(target, "new")
    assert sorted(tmp_path.iterdir()) == sorted([foreign, alive, target, tmp_path / "b.onnx"])


def test_a_locked_temporary_file_survives_though_its_process_has_no_number_here(tmp_path: Path):
    target = tmp_path / "a.onnx"
    with atomic_path(target) as temporary:
        elsewhere = temporary.rename(temporary.with_name(f".a-{_dead_pid()}-00000000.onnx"))
        with atomic_path(target):
            pass
        assert elsewhere.is_file()
        elsewhere.rename(temporary)


def test_a_mode_is_kept(tmp_path: Path):
    target = tmp_path / "a.json"
    target.write_text("secret")
    target.chmod(0o600)
    with atomic_path(target) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_text("new secret")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new secret", 0o600)


def test_a_symlink_is_followed(tmp_path: Path):
    (tmp_path / "there").mkdir()
    link, there = tmp_path / "link.json", tmp_path / "there" / "a.json"
    link.symlink_to(there)
    for text in ("new", "newer"):
        write_text(link, text)
        assert (link.is_symlink(), there.read_text()) == (True, text)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ArtifactError, match="loop: cannot be written"):
        write_text(loop, "")


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        check_writable(pipe)
        write_text(pipe, "hello")
        assert reader.stdout is not None
        assert reader.stdout.read() == "hello"
    assert pipe.is_fifo()
    remedy = r"is a device or pipe, and this has to be a file\. Name another with -o"
    with pytest.raises(ArtifactError, match=remedy), atomic_path(pipe):
        pass
    assert pipe.is_fifo()


def test_a_device_is_written_to_and_stays_one(tmp_path: Path):
    ours, theirs = os.openpty()
    device = Path(os.ttyname(theirs))
    write_text(device, "hello")
    assert os.read(ours, 10) == b"hello"
    assert device.is_char_device()
    link = tmp_path / "link.onnx"
    link.symlink_to(device)
    with pytest.raises(ArtifactError, match="is a device or pipe"), atomic_path(link):
        pass
    os.close(ours)
    os.close(theirs)


def test_an_open_file_is_written_to_by_its_number(tmp_path: Path):
    write = "write_text(Path('/dev/stdout'), 'second')"
    code = f"from pathlib import Path; from tmdeploy.system.files import write_text; {write}"
    with (tmp_path / "out").open("w") as out:
        out.write("first ")
        out.flush()
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "first second"


def test_an_output_may_be_no_input_under_any_name(tmp_path: Path):
    model, hard, soft = tmp_path / "m.onnx", tmp_path / "hard.onnx", tmp_path / "soft.onnx"
    model.write_text("weights")
    (tmp_path / "x").mkdir()
    hard.hardlink_to(model)
    soft.symlink_to(model)
    for target in (model, hard, soft, tmp_path / "x" / ".." / "m.onnx"):
        with pytest.raises(UsageError, match=r"--json .* is (an|the) input.*, and would be overwritten"):
            check_outputs({"--json": target}, [model])
    check_outputs({"--json": tmp_path / "r.json", "--csv": None}, [model, tmp_path / "missing.onnx"])
    assert model.read_text() == "weights"


def test_two_outputs_may_not_be_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = tmp_path / "x.onnx"
    with pytest.raises(UsageError, match=r"-o and --json name the same file, .*x\.onnx\. Name two files"):
        check_outputs({"-o": one, "--json": tmp_path / "." / "x.onnx"})
    capital = tmp_path / "X.onnx"
    check_outputs({"-o": one, "--json": capital})
    monkeypatch.setattr("tmdeploy.system.files._ignores_case", lambda _: True)
    with pytest.raises(UsageError, match="the sidecar and --json name the same file"):
        check_outputs({"the sidecar": one, "--json": capital})
    null = Path("/dev/null")
    check_outputs({"--csv": null, "--json": null}, [null])


def test_the_remedy_names_the_option(tmp_path: Path):
    with pytest.raises(ArtifactError, match="Choose another place with --csv"):
        check_outputs({"--csv": tmp_path / "no" / "x.csv"})
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ArtifactError, match=r"file: is a file, not a folder\. Name another folder with -o"):
        make_folder(file)


def test_names_that_are_no_utf8_or_too_long_for_a_longer_one(tmp_path: Path):
    for name in ("x" * 250 + ".json", "ä" * 125 + ".json", os.fsdecode(b"caf\xe9.json")):
        write_text(tmp_path / name, os.fsdecode(b"caf\xe9"))
        assert (tmp_path / name).read_text() == r"caf\udce9"
    assert len(list(tmp_path.iterdir())) == 3


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


def _dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
