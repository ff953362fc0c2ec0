import json
import shutil
from pathlib import Path

import onnx
import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES

DIGITS = EXAMPLES / "digits"


@pytest.fixture(scope="module")
def model(digits_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(digits_onnx, tmp_path_factory.mktemp("quantize") / "digits.onnx"))


@pytest.fixture(scope="module")
def int8(model: Path) -> Path:
    """Quantised once, by the library."""
    from tmdeploy.quantize import QuantizeRequest, quantize

    output = model.with_name("once.onnx")
    quantize(QuantizeRequest(model, output, "int8", [DIGITS], threads=1))
    return output


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_a_table_a_document_and_a_file(scheme: str, model: Path, capsys: pytest.CaptureFixture[str]):
    report = model.with_name("report.json")
    done = run(
        capsys, "quantize", model, "--data", DIGITS, f"--{scheme}", "--max-drop", 0.2, "--threads", 1, "--json", report
    )
    assert (done.code, done.err) == (0, "")
    output = model.with_name(f"digits.{scheme}.onnx")
    document = json.loads(report.read_text())
    assert (document["schema"], document["output"], document["written"]) == ("tmdeploy.quantize/1", str(output), True)
    assert (document["record"]["quantized"], document["record"]["images"]) == (len(document["quantized"]), 15)
    assert document["bytes_after"] == output.stat().st_size < 0.4 * document["bytes_before"]
    assert document["comparison"]["accuracy"]["images"] == document["comparison"]["images"] == 15
    assert document["drop"]["measure"] == "accuracy"
    assert len(document["steps"]) == 6
    assert len(document["planner"]) == 6
    for words in ("Quantised", "top-1 agreement", "99.99th percentile on 15 images", "PASSED"):
        assert words in done.out


def test_json_alone_on_stdout(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The calibrators print; not where the document goes."""
    output = tmp_path / "q.onnx"
    done = run(capsys, "quantize", model, "--data", DIGITS, "--int8", "--images", 4, "-o", output, "--json", "-")
    document = json.loads(done.out)
    assert (done.code, document["record"]["images"], output.is_file()) == (0, 4, True)
    assert document["drop"]["limit"] is None


def test_a_drop_is_a_failed_check(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "bad.onnx"
    done = run(
        capsys, "quantize", model, "--data", DIGITS, "--int8", "--percentile", 50, "--max-drop", 0.01, "-o", output,
        "--json", tmp_path / "report.json",
    )  # fmt: skip
    assert (done.code, output.exists()) == (1, False)
    assert done.err.startswith(f"error: {model}: accuracy drops by ")
    assert done.err.count("\n") == 1
    assert "FAILED" in done.out
    assert json.loads((tmp_path / "report.json").read_text())["written"] is False


def test_validate_knows_what_int8_may_differ_by(model: Path, int8: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "validate", model, int8, "--data", DIGITS, "--schedule", "8", "--schedule", "3", "--json", "-")
    document = json.loads(done.out)
    assert done.code == 0, done.err
    assert {check["level"] for check in document["checks"]} == {"numeric", "decisions", "model", "accuracy"}
    assert (document["divergent"], document["candidate"]["precision"]) == (0, "int8")
    checkpoint = run(capsys, "validate", EXAMPLES / "digits_tome.pt", int8, "--data", DIGITS)
    assert checkpoint.code == 0, checkpoint.err


def test_validate_sees_a_wrong_scale(model: Path, int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    proto = onnx.load(int8)
    (head,) = [node for node in proto.graph.node if node.op_type == "Gemm"]
    pair = next(node for node in proto.graph.node if node.output[0] == head.input[1])
    (scale,) = [tensor for tensor in proto.graph.initializer if tensor.name == pair.input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 1.5, scale.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    done = run(capsys, "validate", model, tmp_path / "wrong.onnx", "--data", DIGITS)
    assert done.code == 1
    assert "model: logits error" in done.err


def test_inspect_infer_and_bench(int8: Path, capsys: pytest.CaptureFixture[str]):
    inspected = json.loads(run(capsys, "inspect", int8, "--json", "-").out)
    assert inspected["metadata"]["quantization"]["scheme"] == "int8"
    assert inspected["ops"]["DequantizeLinear"] == 2 * inspected["metadata"]["quantization"]["quantized"]
    shown = run(capsys, "inspect", int8).out
    assert "26 nodes in int8" in shown
    found = run(capsys, "infer", int8, DIGITS / "7_0.png", "--json", "-")
    assert found.code == 0, found.err
    timed = run(capsys, "bench", int8, "--duration", "0.1s", "--batch", "1", "--no-memory", "--json", "-")
    assert timed.code == 0, timed.err
    assert len(json.loads(timed.out)["arms"]) == 2  # and its unmerged twin


def test_openvino_takes_it(model: Path, int8: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "validate", int8, int8, "--backend", "openvino", "--data", DIGITS, "--batch", "7", "--json", "-")
    document = json.loads(done.out)
    assert (done.code, document["candidate"]["backend"], document["divergent"]) == (0, "openvino", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", DIGITS], 2, "no scheme. Give --int8 or --fp8."),
        (["--data", DIGITS, "--int8", "--fp8"], 2, "--int8 and --fp8 exclude each other. Give --int8 or --fp8."),
        (["--int8"], 2, "there is nothing to calibrate on. Name images with --data."),
        (["--data", "nowhere", "--int8"], 4, "nowhere: no such file, folder or match"),
        (["--data", ".", "--int8"], 4, ".: no images in this folder"),
        (["--data", DIGITS, "--int8", "-o", "missing/q.onnx"], 4, "missing/q.onnx: cannot be written"),
        (["--data", DIGITS, "--int8", "--keep-float", "+Gelu,head"], 2, "mixes entries with and without a sign"),
        (["--data", DIGITS, "--int8", "--keep-float", "Gelu"], 2, "no node that could be quantised fits 'Gelu'"),
        (["--data", DIGITS, "--int8", "--keep-float=-head"], 2, "'head' is not in the set"),
    ],
)
def test_one_clear_line(
    arguments: list[object],
    code: int,
    message: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    done = run(capsys, "quantize", model, *arguments)
    assert (done.code, done.err.count("\n"), done.out) == (code, 1, "")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []
