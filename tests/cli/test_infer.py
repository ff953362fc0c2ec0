import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES

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
