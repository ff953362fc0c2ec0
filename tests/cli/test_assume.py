"""`--assume`, `--ema` and `--ignore-extra` in the commands that open checkpoints."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.models.weights import small_model

PHOTO = min((EXAMPLES / "digits").rglob("*.png"))
SAID = ["-A", "heads=4", "-A", "act=quick-gelu", "-A", "norm_placement=res-post", "-A", "pool=avg", "-A", "mean=0.5"]


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """Weights that show nothing of what they are, and the module that they are of."""
    module = small_model(heads=4, act="quick_gelu", norm_placement="res_post", pool="avg")
    torch.save({"model": module.state_dict()}, tmp_path / "plain.ckpt")
    return tmp_path / "plain.ckpt", module


def test_what_is_said_is_exported_and_shown(
    plain: tuple[Path, torch.nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, module = plain
    done = run(capsys, "export", path, *SAID, "--method", "tome", "--r", 3, "--opset", 18)
    assert done.code == 0
    assert "heads, act, norm_placement, pool, mean (--assume)" in " ".join(done.out.split())
    assert "warning: assumed, since the weights do not show it: norm_eps 1e-06 (the usual)" in done.err
    output = path.with_suffix(".onnx")
    shown = " ".join(run(capsys, "inspect", output).out.split())
    assert "4 heads, activation quick_gelu, norm res_post, epsilon 1e-06, pool avg" in shown
    assert "mean 0.5,0.5,0.5, std 0.229,0.224,0.225, bicubic, crop 0.9 center" in shown
    assert "norm_eps (the usual)" in shown
    # what runs is the module, where nothing is merged
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(output)
    got = session.run(None, {"images": images, "r": np.zeros(2, np.int64)})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, module(torch.from_numpy(images)).numpy(), atol=1e-5)


def test_a_checkpoint_is_opened_beside_its_file_as_the_file_says(
    plain: tuple[Path, torch.nn.Module], capsys: pytest.CaptureFixture[str]
):
    path, _ = plain
    run(capsys, "export", path, *SAID, "--method", "tome", "--r", 3, "--no-verify")
    done = run(capsys, "validate", path, path.with_suffix(".onnx"), "--random", 2, "--batch", "1")
    assert done.code == 0, done.err
    wrong = run(capsys, "validate", path, path.with_suffix(".onnx"), "--random", 2, "--batch", "1", "-A", "pool=token")
    assert wrong.code == 1


def test_inspect_shows_what_was_assumed(plain: tuple[Path, torch.nn.Module], capsys: pytest.CaptureFixture[str]):
    path, _ = plain
    done = run(capsys, "inspect", path, "--json", "-")
    document = json.loads(done.out)
    found = {one["key"]: (one["value"], one["why"]) for one in document["card"]["assumptions"]}
    assert found["heads"] == ("1", "width / 64")
    assert found["act"] == ("gelu", "the usual")
    assert "Prove it with export --against" in " ".join(done.err.split())
    said = json.loads(run(capsys, "inspect", path, *SAID, "--json", "-").out)
    assert said["card"]["architecture"]["norm_placement"] == "res_post"
    assert said["card"]["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("command", ["infer", "visualize"])
def test_commands_on_images_take_it_too(
    command: str, plain: tuple[Path, torch.nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, _ = plain
    wrong = run(capsys, command, path, PHOTO, "-A", "act=swish", *(["-o", tmp_path / "out"] * (command == "visualize")))
    assert wrong.code == 2
    assert "--assume act: Input should be 'gelu'" in wrong.err
    if command == "infer":
        done = run(capsys, command, path, PHOTO, "--num-heads", 4)
        assert done.code == 0
        assert "warning: assumed, since the weights do not show it: act gelu" in done.err


def test_averaged_weights_and_weights_beside_the_vit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trained, average = small_model(), small_model(num_classes=3)
    held = {
        "state_dict": trained.state_dict(),
        "state_dict_ema": {**average.state_dict(), "neck.weight": torch.ones(2)},
    }
    torch.save(held, tmp_path / "model_best.pth.tar")
    document = json.loads(run(capsys, "inspect", tmp_path / "model_best.pth.tar", "--json", "-").out)
    assert document["card"]["architecture"]["num_classes"] == 5
    done = run(capsys, "export", tmp_path / "model_best.pth.tar", "--ema", "--ignore-extra", "--no-verify")
    assert done.code == 0, done.err
    assert "warning: the averaged weights under 'state_dict_ema' are read" in done.err
    assert "warning: left out, since they are no part of the ViT: neck.weight" in done.err
    made = json.loads(run(capsys, "inspect", tmp_path / "model_best.onnx", "--json", "-").out)
    assert made["card"]["architecture"]["num_classes"] == 3
