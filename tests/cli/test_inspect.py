import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.running import run
from tests.conftest import EXAMPLES


def test_an_exported_file(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "inspect", digits_onnx, "--json", "-")
    document = json.loads(done.out)
    assert document["schema"] == "tmdeploy.inspect/2"
    assert document["inputs"][1] == {"name": "r", "type": "int64", "shape": [6], "optional": True}
    assert [row["tokens_out"] for row in document["blocks"]] == [57, 49, 41, 33, 25, 17]
    assert document["ops"]["tmdeploy::TokenMatch"] == 6
    assert document["functions"] == ["tmdeploy::TokenMatch", "tmdeploy::TokenReduce"]
    assert document["macs"] < document["macs_unmerged"]
    assert "function bodies" in done.err  # the table


def test_a_checkpoint(capsys: pytest.CaptureFixture[str]):
    document = json.loads(run(capsys, "inspect", EXAMPLES / "digits_tome.pt", "--json", "-").out)
    assert (document["kind"], document["card"]["recipe"]["method"]) == ("checkpoint", "tome")
    assert document["card"]["architecture"]["width"] == 96


def test_a_file_that_merges_nothing_saves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "none.onnx"
    done = run(capsys, "export", EXAMPLES / "digits_tome.pt", "-o", path, "--method", "none", "--no-verify")
    assert done.code == 0, done.err
    shown = " ".join(run(capsys, "inspect", path).out.split())
    assert "0.0483 G of 0.0483 G unmerged (nothing saved)" in shown
    assert "-0.0" not in shown


def test_a_foreign_file_says_what_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    path = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    done = run(capsys, "inspect", path)
    assert done.code == 0
    assert "not exported by tmdeploy" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers"], "--layers: only an engine has layers of its own"),
        (["--profile"], "--profile: only an engine has layers of its own"),
        (["--batch", 2], "--batch: only a layer-time profile has it. Add --profile"),
        (["--iterations", 2], "--iterations: only a layer-time profile has it"),
        (["--schedule", "2"], "--schedule: only a layer-time profile has it"),
        (["--keep", "0.7"], "--keep: only a layer-time profile has it"),
        (["--r", "2", "--schedule", "2"], "--r 2 and --schedule 2 say the same"),
    ],
)
def test_options_of_engines_are_refused(
    arguments: list[object], message: str, digits_onnx: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(capsys, "inspect", digits_onnx, *arguments)
    assert (done.code, done.err.count("\n"), done.out) == (2, 1, "")
    assert message in done.err


def test_methods_lists_every_method(capsys: pytest.CaptureFixture[str]):
    document = json.loads(run(capsys, "methods", "--json", "-").out)
    assert [row["name"] for row in document["methods"]] == ["evit", "mstm", "none", "tome", "topk"]
    shown = run(capsys, "methods").out
    assert "reconstruction" in shown
