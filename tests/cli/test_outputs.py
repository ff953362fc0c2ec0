"""What commands write destroys nothing that they read, and nothing else that they write."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES

# Beside the files that `folder` makes; every one names the option and the file.
REFUSED = [
    ("infer m.onnx photos --json m.onnx", "--json m.onnx is an input"),
    ("infer m.onnx photos --json photos/a.png", "--json photos/a.png is an input"),
    ("infer m.onnx photos/*.png --csv photos/../photos/a.png", "--csv photos/../photos/a.png is an input"),
    ("infer m.onnx photos --json hard.onnx", "--json hard.onnx is the input m.onnx"),
    ("infer m.onnx photos --json soft.onnx", "--json soft.onnx is the input m.onnx"),
    ("infer m.onnx photos --class-names names.txt --csv names.txt", "--csv names.txt is an input"),
    ("infer m.onnx photos --csv r --json ./r", "--csv and --json name the same file"),
    ("inspect m.pt --json m.pt", "--json m.pt is an input"),
    ("validate m.pt m.onnx --json m.pt", "--json m.pt is an input"),
    ("validate m.pt m.onnx --data photos --json photos/a.png", "--json photos/a.png is an input"),
    ("bench m.onnx --json m.onnx", "--json m.onnx is an input"),
    ("bench --engine e.plan --json e.plan.json", "--json e.plan.json is an input"),
    ("export m.pt -o x.onnx --json x.onnx", "-o and --json name the same file"),
    ("export m.pt -o x.onnx --json m.pt", "--json m.pt is an input"),
    ("export m.pt -o soft.onnx --verify-data soft.onnx", "-o soft.onnx is an input"),
    ("quantize m.onnx --data photos --int8 -o m.onnx", "-o m.onnx is an input"),
    ("quantize m.onnx --data photos --int8 --json photos/a.png", "--json photos/a.png is an input"),
    ("quantize m.onnx --data photos --int8 -o q.onnx --json q.onnx", "-o and --json name the same file"),
    ("build m.onnx -o x.plan --json x.plan.json", "the sidecar and --json name the same file"),
    ("build m.onnx -o x.plan --json x.plan.layers.json", "the layer listing and --json name the same file"),
    ("build m.onnx -o x.plan --timing-cache m.onnx", "--timing-cache m.onnx is an input"),
    ("build m.pt -o x.plan --json x.onnx", "the exported file and --json name the same file"),
    ("refit e.plan m.onnx -o x.plan --json e.plan.json", "--json e.plan.json is an input"),
    ("refit e.plan m.onnx --json e.full.plan", "-o and --json name the same file"),
    ("visualize m.onnx photos -o photos", "photos/a.png is an input"),
    ("visualize m.onnx photos/a.png -o x.png --json x.png", "-o and --json name the same file"),
    ("demo -o made --json made/digits_tome.onnx", "the exported file and --json name the same file"),
    ("plugins build -o made --json made/libtmdeploy_tensorrt.so", "name the same file"),
]


@pytest.fixture
def folder(digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(digits_onnx, tmp_path / "m.onnx")
    shutil.copy(EXAMPLES / "digits_tome.pt", tmp_path / "m.pt")
    (tmp_path / "hard.onnx").hardlink_to(tmp_path / "m.onnx")
    (tmp_path / "soft.onnx").symlink_to("m.onnx")
    (tmp_path / "photos").mkdir()
    shutil.copy(EXAMPLES / "digits" / "3_0.png", tmp_path / "photos" / "a.png")
    for name in ("e.plan", "e.plan.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "names.txt").write_text("\n".join("0123456789"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_command_overwrites_what_it_reads_or_writes(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for command, message in REFUSED:
        done = run(capsys, *command.split())
        assert (done.code, done.out) == (2, ""), (command, done.err)
        assert message in done.err, command
        assert done.err.count("\n") == 1, command
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_pipes_devices_links_and_modes_stay_what_they_are(folder: Path, capsys: pytest.CaptureFixture[str]):
    private, link, pipe = folder / "private.json", folder / "link.json", folder / "pipe"
    private.touch(0o600)
    link.symlink_to(private)
    os.mkfifo(pipe)
    assert run(capsys, "infer", "m.onnx", "photos", "--json", link).code == 0
    assert (link.is_symlink(), private.stat().st_mode & 0o777) == (True, 0o600)
    ours, theirs = os.openpty()
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        done = run(capsys, "infer", "m.onnx", "photos", "--top-k", 1, "--json", pipe, "--csv", os.ttyname(theirs))
        assert done.code == 0
        assert reader.stdout is not None
        document = json.loads(reader.stdout.read())
    assert pipe.is_fifo()
    guesses = [image["top"][0]["index"] for image in json.loads(private.read_text())["images"]]
    assert [image["top"][0]["index"] for image in document["images"]] == guesses
    assert os.read(ours, 1000).startswith(b"path,rank,index")
    assert Path(os.ttyname(theirs)).is_char_device()
    os.close(ours)
    os.close(theirs)


def test_an_ascii_terminal_gets_the_verdict(folder: Path):
    code = "import sys, tmdeploy_cli; tmdeploy_cli.main(sys.argv[1:])"
    command = ["validate", "m.onnx", "m.onnx", "--random", "2", "--batch", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code, *command], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"<= " in done.stdout
    assert done.stdout.rstrip().endswith(b"PASSED")


def test_a_model_of_which_the_name_is_no_utf8_is_exported(folder: Path, capsys: pytest.CaptureFixture[str]):
    name = os.fsdecode(b"caf\xe9.pt")
    (folder / "m.pt").rename(folder / name)
    done = run(capsys, "export", name, "-o", "x.onnx", "--no-verify", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metadata"]["card"]["provenance"]["source_name"] == r"caf\udce9.pt"
