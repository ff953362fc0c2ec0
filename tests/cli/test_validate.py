import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.running import run
from tests.conftest import EXAMPLES

CHECKPOINT, DIGITS = EXAMPLES / "digits_tome.pt", EXAMPLES / "digits"


def _changed(model: Path, target: Path, name: str, factor: float) -> Path:
    """The file with one of its weights multiplied."""
    proto = onnx.load(model)
    (found,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith(name)]
    found.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(found) * np.float32(factor), found.name))
    onnx.save(proto, target)
    return target


def test_the_exported_file_is_the_checkpoint(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(
        capsys, "validate", CHECKPOINT, digits_onnx, "--data", DIGITS, "--batch", "1,7", "--schedule", 8,
        "--schedule", "0,3,8,16,2,1", "--json", "-",
    )  # fmt: skip
    assert done.code == 0
    document = json.loads(done.out)
    assert document["schema"] == "tmdeploy.validate/1"
    assert document["passed"] is True
    assert (document["compared"], document["agreeing"]) == (120, 120)
    assert {check["level"] for check in document["checks"]} == {"numeric", "decisions", "model", "accuracy"}
    assert document["model"]["logits_error_max"] < 1e-4
    assert document["accuracy"]["reference"] == document["accuracy"]["candidate"] > 0.9
    assert document["accuracy"]["images"] == 30 * 2 * 2 or document["accuracy"]["images"] == 30


@pytest.mark.parametrize(
    ("weight", "factor", "level"),
    [("head.weight", 1.01, "model"), ("blocks.0.attn.qkv.bias", 1.5, "decisions")],
)
def test_a_changed_file_fails_at_the_level_that_sees_it(
    weight: str, factor: float, level: str, digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = _changed(digits_onnx, tmp_path / "other.onnx", weight, factor)
    report = tmp_path / "report.json"
    done = run(capsys, "validate", CHECKPOINT, other, "--data", DIGITS, "--json", report)
    assert done.code == 1
    assert done.err.startswith(f"error: {other} failed ")
    failed = {check["level"] for check in json.loads(report.read_text())["checks"] if not check["passed"]}
    assert level in failed


def test_a_body_that_merges_wrongly_fails_the_numeric_level(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Same plans, wrong sums: the division of wmean is left out."""
    proto = onnx.load(digits_onnx)
    (reduce,) = [function for function in proto.functions if function.name == "TokenReduce"]
    divisions = [node for node in reduce.node if node.op_type == "Div"]
    assert divisions
    for node in divisions:
        del node.input[1:]
        node.op_type = "Identity"
    path = tmp_path / "sums.onnx"
    onnx.save(proto, path)
    report = tmp_path / "report.json"
    done = run(capsys, "validate", CHECKPOINT, path, "--data", DIGITS, "--json", report)
    assert done.code == 1
    failed = {check["level"] for check in json.loads(report.read_text())["checks"] if not check["passed"]}
    assert "numeric" in failed


def test_onnx_against_onnx_and_the_same_accuracy(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "validate", digits_onnx, digits_onnx, "--data", DIGITS)
    assert done.code == 0
    assert "accuracy" in done.out


def test_random_images_where_there_are_none(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "validate", CHECKPOINT, digits_onnx, "--random", 5, "--json", "-")
    document = json.loads(done.out)
    assert (done.code, document["images"], document["data"]) == (0, 5, "5 seeded random images")
    assert [skip["level"] for skip in document["skipped"]] == ["accuracy"]


def test_broken_images_are_skipped_named_and_counted(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(DIGITS / "3_0.png", tmp_path / "3_0.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = run(capsys, "validate", CHECKPOINT, digits_onnx, "--data", tmp_path)
    assert done.code == 0
    assert f"warning: skipped {tmp_path / 'broken.jpg'}: not an image, or damaged\n" in done.err
    assert "warning: 1 of 2 images skipped\n" in done.err
    assert "1 image from" in done.out
    document = json.loads(run(capsys, "validate", CHECKPOINT, digits_onnx, "--data", tmp_path, "--json", "-").out)
    assert [Path(name).name for name, _ in document["skipped_images"]] == ["broken.jpg"]


def test_an_impossible_limit_fails(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "validate", CHECKPOINT, digits_onnx, "--data", DIGITS, "--atol", "0")
    assert done.code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "nowhere"], 4, "nowhere: no such file, folder or match"),
        (["--r", "1,2,3,4,5,6,7"], 2, "7 values for 6 blocks"),
        (["--batch", "0"], 2, "--batch 0"),
        (["--batch", "x"], 2, "not whole numbers"),
    ],
)
def test_bad_arguments(
    arguments: list[str], code: int, message: str, digits_onnx: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(capsys, "validate", CHECKPOINT, digits_onnx, *arguments)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert message in done.err


def test_one_file_in_two_backends(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(
        capsys, "validate", digits_onnx, digits_onnx, "--backend", "openvino", "--data", DIGITS, "--batch", "7",
        "--schedule", "8", "--json", "-",
    )  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["passed"] is True
    assert (document["reference"]["backend"], document["candidate"]["backend"]) == ("onnxruntime", "openvino")
    assert (document["compared"], document["agreeing"]) == (30, 30)
    assert {check["level"] for check in document["checks"]} == {"numeric", "decisions", "model", "accuracy"}
