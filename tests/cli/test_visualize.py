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
