import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tmdeploy
from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.export.exporting import save_tiny
from tests.vits import tiny_vit

DIGITS = EXAMPLES / "digits"


def test_classifies_files_folders_and_globs(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = tmp_path / "out.csv"
    done = run(capsys, "infer", digits_onnx, DIGITS, "--top-k", 3, "--batch", 7, "--csv", table, "--json", "-")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["schema"] == "tmdeploy.infer/1"
    right = [Path(image["path"]).name[0] == image["top"][0]["name"] for image in document["images"]]
    assert (len(right), all(right)) == (30, True)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 90
    assert set(rows[0]) == {"path", "rank", "index", "name", "probability"}
    globbed = json.loads(run(capsys, "infer", digits_onnx, f"{DIGITS}/1_*.png", "--json", "-").out)
    assert len(globbed["images"]) == 3


def test_checkpoint_and_onnx_agree(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    from_onnx, from_torch = (
        json.loads(run(capsys, "infer", model, DIGITS, "--json", "-").out)["images"]
        for model in (digits_onnx, EXAMPLES / "digits_tome.pt")
    )
    for ours, theirs in zip(from_onnx, from_torch, strict=True):
        assert [guess["index"] for guess in ours["top"]] == [guess["index"] for guess in theirs["top"]]
        assert ours["top"][0]["probability"] == pytest.approx(theirs["top"][0]["probability"], abs=1e-5)


def test_broken_images_are_skipped_named_and_counted(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(DIGITS / "3_0.png", tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than a beginning")
    whole = (DIGITS / "4_0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    done = run(capsys, "infer", digits_onnx, tmp_path, "--json", "-")
    assert done.code == 0
    assert f"warning: skipped {tmp_path / 'broken.jpg'}: " in done.err
    assert f"warning: skipped {tmp_path / 'cut.png'}: " in done.err
    assert "warning: 2 of 3 images skipped" in done.err
    assert len(json.loads(done.out)["skipped"]) == 2

    (tmp_path / "good.png").unlink()
    done = run(capsys, "infer", digits_onnx, tmp_path)
    assert done.code == 4
    assert "cannot be read as an image" in done.err


def test_another_schedule_gives_another_answer(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    def probability(*schedule: object) -> float:
        done = run(capsys, "infer", digits_onnx, DIGITS / "3_0.png", "--json", "-", *schedule)
        return json.loads(done.out)["images"][0]["top"][0]["probability"]

    assert probability() == probability("--schedule", 8)
    assert probability("--schedule", "0,8,8,8,8,8") != probability()
    assert probability("--r", "16:0") == probability("--schedule", "16,12,9,6,3,0")


def test_class_names_from_a_file(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({str(index): f"digit {index}" for index in range(10)}))
    done = run(capsys, "infer", digits_onnx, DIGITS / "3_0.png", "--top-k", 1, "--class-names", names)
    assert "digit 3" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.png"], 4, "missing.png: no such file, folder or match"),
        ([DIGITS, "--schedule", "1,2,3,4,5,6,7"], 2, "--schedule 1,2,3,4,5,6,7: 7 values for 6 blocks"),
        ([DIGITS, "--schedule", "-1"], 2, "--schedule -1: cannot be negative"),
        ([DIGITS, "--class-names", "none.txt"], 4, "none.txt: cannot be read"),
        ([""], 4, "an empty name where images should be"),
        ([DIGITS, "--csv", "/nowhere/x.csv"], 4, "Choose another place with --csv"),
        ([DIGITS, "--csv", "/tmp/x.csv", "--json", "/tmp/x.csv"], 2, "--csv and --json name the same file, /tmp/x.csv"),
    ],
)
def test_bad_arguments(arguments: list, code: int, message: str, digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "infer", digits_onnx, *arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"not a model", "no ONNX file, or a truncated one"), (None, "no such file")],
)
def test_bad_models(content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = tmp_path / "m.onnx"
    if content is not None:
        model.write_bytes(content)
    for command in (("infer", model, DIGITS), ("inspect", model), ("bench", model)):
        done = run(capsys, *command)
        assert done.code == 4
        assert done.err.startswith(f"error: {model}: ")
        assert message in done.err
        assert done.err.count("\n") == 1


def test_truncated_model(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = tmp_path / "cut.onnx"
    model.write_bytes(digits_onnx.read_bytes()[:-5000])
    done = run(capsys, "infer", model, DIGITS)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert str(model) in done.err


def test_unknown_suffix_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = tmp_path / "model.h5"
    model.touch()
    done = run(capsys, "infer", model, DIGITS)
    assert (done.code, "no backend reads '.h5' files" in done.err) == (2, True)


def test_openvino_gives_the_same_answers(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    ours, theirs = (
        json.loads(run(capsys, "infer", digits_onnx, DIGITS, "--json", "-", *backend).out)
        for backend in ((), ("--backend", "openvino"))
    )
    assert theirs["model"]["backend"] == "openvino"
    for one, other in zip(ours["images"], theirs["images"], strict=True):
        assert [guess["index"] for guess in one["top"]] == [guess["index"] for guess in other["top"]]
    done = run(capsys, "infer", EXAMPLES / "digits_tome.pt", DIGITS, "--backend", "openvino")
    assert done.code == 2
    assert "openvino reads .onnx only" in done.err


def _tiny(folder: Path, **changes: object) -> Path:
    return save_tiny(tmdeploy.patch(tiny_vit(depth=1, **changes), "tome", r=8), folder)


def test_a_model_without_a_classifier_names_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = _tiny(tmp_path, num_classes=0)
    done = run(capsys, "infer", model, DIGITS / "3_0.png")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert f"{model}: has no classifier" in done.err


def test_logits_that_are_no_numbers_are_said_and_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    vit = tiny_vit(depth=1)
    with torch.no_grad():
        vit.head.weight.fill_(1e38)
    model = save_tiny(tmdeploy.patch(vit, "tome", r=8), tmp_path)
    report, table = tmp_path / "r.json", tmp_path / "r.csv"
    done = run(capsys, "infer", model, DIGITS / "3_0.png", "--json", report, "--csv", table)
    assert done.code == 1
    assert "none: its logits are NaN or infinite" in done.out
    assert "1 of 1 images have no class: its logits are NaN or infinite. Check the model's weights" in done.err
    (image,) = json.loads(report.read_text(), parse_constant=pytest.fail)["images"]
    assert (image["top"], image["problem"]) == ([], "its logits are NaN or infinite")
    assert table.read_text().splitlines()[1] == f"{DIGITS / '3_0.png'},,,,"
    drawing = tmp_path / "x.png"
    done = run(capsys, "visualize", model, DIGITS / "3_0.png", "-o", drawing)
    assert done.code == 1
    assert "logits that are NaN or infinite, so their plans mean nothing" in done.err


def test_names_and_files_are_shown_as_they_are(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names, image = tmp_path / "names.json", tmp_path / "[x].png"
    shutil.copy(DIGITS / "3_0.png", image)
    hostile = ["[/bold]", "[unused0]", "\x1b[31mred", "two\nlines", "a name that is long " * 9, *"56789"]
    names.write_text(json.dumps(hostile))
    done = run(capsys, "infer", digits_onnx, image, "--top-k", 10, "--class-names", names)
    assert done.code == 0, done.err
    rows = {row.split()[-2]: row for row in done.out.splitlines() if row.endswith("% ")}
    for index, shown in enumerate(["[/bold]", "[unused0]", r"\x1b[31mred", r"two\nlines", "a name that is"]):
        assert shown in rows[str(index)]  # in the row of its index, though the last one takes several lines
    assert "[x].png" in done.out
    assert "\x1b" not in done.out


def test_equal_names_are_told_apart_by_their_folders(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        shutil.copy(DIGITS / "3_0.png", tmp_path / folder)
    (tmp_path / "a" / "z.heic").write_bytes(b"ftypheic")
    done = run(capsys, "infer", digits_onnx, tmp_path, "--top-k", 1)
    assert [line.split()[0] for line in done.out.splitlines() if "%" in line] == ["a/3_0.png", "b/3_0.png"]
    assert f"skipped {tmp_path}/a/z.heic: HEIC is not read: convert it to JPEG or PNG" in done.err
    assert "1 of 3 images skipped" in done.err


def test_too_many_class_names_are_refused(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = tmp_path / "names.txt"
    names.write_text("background\n" + "\n".join("0123456789"))
    done = run(capsys, "infer", digits_onnx, DIGITS / "3_0.png", "--class-names", names)
    assert (done.code, done.out) == (4, "")
    assert f"{names}: has 11 class names, and the model has 10 classes. Leave out its first, 'background'" in done.err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_and_a_terminal_that_is_ascii_lose_nothing(digits_onnx: Path, tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(DIGITS / "3_0.png", tmp_path / name)
    table = tmp_path / "t.csv"
    for encoding in ("utf-8", "ascii"):
        code = "import sys, tmdeploy_cli; tmdeploy_cli.main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "infer", digits_onnx, tmp_path, "--csv", table]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert rb"caf\udce9.png" in done.stdout
        assert rb"caf\udce9.png" in table.read_bytes()
        done = subprocess.run([*command[:-2], "--json", "-"], env=environment, capture_output=True, check=True)
        assert Path(json.loads(done.stdout)["images"][0]["path"]).name == name
