import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.running import run
from tests.conftest import EXAMPLES

CHECKPOINT, DIGITS = EXAMPLES / "digits_tome.pt", EXAMPLES / "digits"


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_the_exported_models_plans_are_drawn(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from_onnx, from_torch, early = (tmp_path / f"{name}.png" for name in ("onnx", "torch", "early"))
    assert run(capsys, "visualize", digits_onnx, DIGITS / "3_0.png", "-o", from_onnx).code == 0
    assert run(capsys, "visualize", CHECKPOINT, DIGITS / "3_0.png", "-o", from_torch).code == 0
    assert (_pixels(from_onnx) == _pixels(from_torch)).all()
    assert run(capsys, "visualize", digits_onnx, DIGITS / "3_0.png", "-o", early, "--schedule", 1).code == 0
    assert (_pixels(early) != _pixels(from_onnx)).any()


def test_one_panel_a_block_and_one_file_an_image(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "visualize", digits_onnx, f"{DIGITS}/3_*.png", "-o", tmp_path, "--block", 0, "--block", 5)
    assert done.code == 0
    written = sorted(tmp_path.glob("*.png"))
    assert [path.name for path in written] == ["3_0.png", "3_1.png", "3_2.png"]
    assert _pixels(written[0]).shape[1] == 3 * 448 + 4 * 8
    assert done.out.count("wrote ") == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([DIGITS, "-o", "x.png"], 2, "30 images do not fit in x.png"),
        ([DIGITS / "3_0.png", "--block", 9], 2, "--block 9: no reduction step there. Choose from: 0, 1, 2, 3, 4, 5"),
        (["gone.png"], 4, "gone.png: no such file"),
    ],
)
def test_bad_arguments(
    arguments: list,
    code: int,
    message: str,
    digits_onnx: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    done = run(capsys, "visualize", digits_onnx, *arguments)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert message in done.err
    assert not list(tmp_path.rglob("*.png"))


def test_inputs_are_never_drawn_over_and_equal_names_are_told_apart(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for name, digit in (("a/cat.png", 3), ("b/cat.png", 4)):
        (photos / name).parent.mkdir(parents=True)
        (photos / name).write_bytes((DIGITS / f"{digit}_0.png").read_bytes())
    before = (photos / "a" / "cat.png").read_bytes()
    done = run(capsys, "visualize", digits_onnx, photos / "a", "-o", photos / "a")
    message = f"error: {photos}/a/cat.png is an input, and would be overwritten. Name another with -o.\n"
    assert (done.code, done.err) == (2, message)
    assert run(capsys, "visualize", digits_onnx, photos / "a" / "cat.png", "-o", photos / "a" / "cat.png").code == 2
    assert (photos / "a" / "cat.png").read_bytes() == before
    done = run(capsys, "visualize", digits_onnx, photos, "-o", out, "--json", out / "r.json")
    assert done.code == 0
    drawn = {
        Path(row["drawing"]).name: Path(row["image"]) for row in json.loads((out / "r.json").read_text())["drawings"]
    }
    assert drawn == {"a-cat.png": photos / "a" / "cat.png", "b-cat.png": photos / "b" / "cat.png"}
    assert (_pixels(out / "a-cat.png") != _pixels(out / "b-cat.png")).any()


def test_json_says_what_was_drawn(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "x.png"
    done = run(capsys, "visualize", digits_onnx, DIGITS / "3_0.png", "-o", target, "--block", 0, "--json", "-")
    document = json.loads(done.out)
    assert (document["schema"], document["skipped"]) == ("tmdeploy.visualize/1", [])
    blocks = [{"block": 0, "tokens": 56, "dropped": 0}]
    image = str(DIGITS / "3_0.png")
    assert document["drawings"] == [{"image": image, "drawing": str(target), "finite": True, "blocks": blocks}]
    assert f"wrote {target}" in done.err.replace("\n", "")
