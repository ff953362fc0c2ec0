import json
from pathlib import Path

import onnxruntime
import pytest
import torch

from tests.cli.running import run
from tests.conftest import EXAMPLES

DIGITS = EXAMPLES / "digits_tome.pt"


def test_export_alone_suffices_for_tmdeploys_own_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output, report = tmp_path / "d.onnx", tmp_path / "report.json"
    done = run(capsys, "export", DIGITS, "-o", output, "--json", report, "--verify-data", EXAMPLES / "digits")
    assert (done.code, done.err) == (0, "")
    assert "plans equal" in done.out
    document = json.loads(report.read_text())
    assert document["schema"] == "tmdeploy.export/2"
    assert document["metadata"]["card"]["recipe"]["amounts"] == [8] * 6
    assert document["verification"]["divergent"] == 0
    assert onnxruntime.InferenceSession(output).get_inputs()[0].shape == ["batch", 3, 32, 32]


def test_plain_weights_take_everything_from_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = torch.load(DIGITS, weights_only=True)["state_dict"]
    plain = tmp_path / "plain.pth"
    torch.save({"model": weights}, plain)
    done = run(
        capsys, "export", plain, "--method", "mstm", "--layers", "1,3", "--keep", "0.8,0.5", "--num-heads", 3,
        "-O", "weight=exp_sim", "-O", "score=ats", "--json", "-", "--lowering", "portable",
    )  # fmt: skip
    assert done.code == 0
    document = json.loads(done.out)  # JSON alone on stdout
    assert document["path"] == str(tmp_path / "plain.onnx")
    recipe = document["metadata"]["card"]["recipe"]
    assert (recipe["layers"], recipe["amounts"], recipe["options"]["weight"]) == ([1, 3], [52, 26], "exp_sim")
    assert document["metadata"]["lowering"] == "portable"


def test_plain_weights_without_a_method_are_exported_as_they_are_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = tmp_path / "plain.pth"
    torch.save({"model": torch.load(DIGITS, weights_only=True)["state_dict"]}, plain)
    done = run(capsys, "export", plain, "--num-heads", 3)
    assert done.code == 0
    assert "warning: the checkpoint names no reduction method" in done.err
    assert "decisions" not in done.out
    assert "names no reduction method" not in run(capsys, "export", plain, "--num-heads", 3, "--method", "none").err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--r", "-3"], 2, "--r -3: cannot be negative"),
        (["--keep", "0.7"], 2, "method 'tome' takes no --keep. Use --r."),
        (["--r", "8", "--schedule", "8"], 2, "--r and --schedule say the same"),
        (["--method", "tomme"], 2, "unknown method 'tomme'. Did you mean 'tome'?"),
        (["-O", "speed"], 2, "--method-option speed: not of the form KEY=VALUE"),
        (["--opset", "30"], 2, "--opset 30: supported are 18 to 23"),
        (["--extra-output", "everything"], 2, "unknown output 'everything'"),
        (["-o", "/nowhere/x.onnx"], 4, "/nowhere/x.onnx: cannot be written (No such file or directory)"),
    ],
)
def test_bad_options(arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = [] if "-o" in arguments else ["-o", tmp_path / "x.onnx"]
    done = run(capsys, "export", DIGITS, *output, *arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def _write(path: Path, kind: str) -> Path:
    content = DIGITS.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "image":
        path.write_bytes((EXAMPLES / "digits" / "3_0.png").read_bytes())
    elif kind == "resnet":
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, path)
    elif kind == "empty":
        path.touch()
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "image", "resnet"])
def test_bad_checkpoints_are_one_line_that_names_the_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = _write(tmp_path / "model.pt", kind)
    output = tmp_path / "x.onnx"
    done = run(capsys, "export", path, "-o", output)
    assert done.code == 4
    assert done.err.startswith(f"error: {path}: ")
    assert done.err.count("\n") == 1
    assert not output.exists()


def test_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path = tmp_path / "evil.pt"
    torch.save({"model": Payload()}, path)
    done = run(capsys, "export", path, "-o", tmp_path / "x.onnx")
    assert done.code == 4
    assert "--trust-checkpoint" in done.err
    assert not marker.exists()


def test_a_wrong_file_is_not_given_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The self-check is a check: a body that merges wrongly must not get past it."""
    from tmdeploy.ops.bodies import token_reduce

    broken = token_reduce._TAILS["wmean"].replace("x_sum = Add (x_weighted, x_moved)", "x_sum = Identity (x_weighted)")
    monkeypatch.setitem(token_reduce._TAILS, "wmean", broken)
    output = tmp_path / "x.onnx"
    done = run(capsys, "export", DIGITS, "-o", output)
    assert done.code == 4
    assert "does not compute what PyTorch computes" in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
