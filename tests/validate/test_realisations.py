"""A file's ops, each by itself: what a wrong body, a wrong kernel and a body by somebody else are taken for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.ops.test_bodies import CASES
from tmdeploy.backends import open_runner
from tmdeploy.backends.base import Part
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.card.metadata import StepRecord
from tmdeploy.errors import ExportError
from tmdeploy.ops import reference
from tmdeploy.validate import realisations
from tmdeploy.validate.op_inputs import op_inputs
from tmdeploy.validate.realisations import OpCall, expected, op_calls, prove_ops

DIGITS = EXAMPLES / "digits"
_GIVEN = {
    "TokenMatch": ("metric", "slots"),
    "TokenReduce": ("x", "map", "index", "weight"),
    "drop": ("score", "slots"),
    "nearest": ("score", "slots", "metric"),
    "fuse": ("score", "slots", "metric", "kept"),
}


def _call(op: str, attributes: dict) -> OpCall:
    given = _GIVEN[op if op != "TokenSelect" else attributes["leftover"]]
    return OpCall(op, f"block0/{op}", given, tuple(sorted(attributes.items())))


@pytest.mark.parametrize(("op", "attributes"), CASES)
def test_what_is_expected_is_what_the_reference_computes(op: str, attributes: dict):
    """The evaluator of the onnx package on our body: plans bit for bit, ties and NaN among them."""
    call = _call(op, attributes)
    inputs = op_inputs(op, call.given, attributes, (), half=False)
    if op != "TokenReduce":
        ties = [len(np.unique(feeds["metric" if "metric" in feeds else "score"][1])) < 12 for feeds in inputs]
        assert any(ties)
        assert any(np.isnan(value).any() for feeds in inputs for value in feeds.values())
    for feeds in inputs:
        tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
        if op == "TokenReduce":
            wanted = reference.token_reduce(*tensors.values(), attributes["mode"])
        elif op == "TokenMatch":
            wanted = reference.token_match(tensors["metric"], tensors["slots"], **attributes)
        else:
            wanted = reference.token_select(**tensors, **attributes)
        for ours, theirs in zip(expected(call, feeds), wanted, strict=True):
            if ours.dtype == np.int32:
                np.testing.assert_array_equal(ours, theirs.numpy())
            else:
                np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def changed(path: Path, output: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, output)
    return output


def _function(model: onnx.ModelProto, name: str) -> onnx.FunctionProto:
    return next(function for function in model.functions if function.name == name)


def merge_the_least_similar(model: onnx.ModelProto) -> None:
    node = next(node for node in _function(model, "TokenMatch").node if node.op_type == "TopK")
    kept = [entry for entry in node.attribute if entry.name != "largest"]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("largest", 0)])


def _forget_the_weights(model: onnx.ModelProto) -> None:
    function = _function(model, "TokenReduce")
    node = next(node for node in function.node if list(node.output) == ["source_weight"])
    node.op_type, node.input[:] = "Identity", ["source_flag"]


def _other_names(model: onnx.ModelProto) -> None:
    """What it computes stays."""
    for node in _function(model, "TokenMatch").node:
        for names in (node.input, node.output):
            names[:] = [f"their_{name}" if name in {"ranked", "kept_count"} else name for name in names]


class _Kernels(OnnxRuntimeRunner):
    """As if a native library ran the ops: the bodies of another file are its kernels."""

    def __init__(self, path: Path, kernels: Path) -> None:
        super().__init__(path, model=_with_functions(path, kernels), native=False)
        self.facts, self._kernels = replace(self.facts, native=True), kernels

    def open_part(self, model: bytes) -> Part:
        part = onnx.load_from_string(model)
        del part.functions[:]
        part.functions.extend(onnx.load(self._kernels).functions)
        return super().open_part(part.SerializeToString())


def _with_functions(path: Path, other: Path) -> bytes:
    model = onnx.load(path)
    del model.functions[:]
    model.functions.extend(onnx.load(other).functions)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def wrong(digits_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(digits_onnx, tmp_path_factory.mktemp("wrong") / "wrong.onnx", merge_the_least_similar)


def test_the_exporters_own_file_is_right(digits_onnx: Path):
    (bodies,) = prove_ops(open_runner(digits_onnx), 1e-5)
    assert (bodies.name, bodies.ops) == ("bodies", ("TokenMatch", "TokenReduce"))
    assert bodies.inputs >= 20
    assert bodies.wrong == bodies.foreign == ()


@pytest.mark.parametrize(("body", "kernel"), list(itertools.product([False, True], repeat=2)))
def test_a_wrong_body_a_wrong_kernel_and_both(body: bool, kernel: bool, digits_onnx: Path, wrong: Path):
    runner = _Kernels(wrong if body else digits_onnx, wrong if kernel else digits_onnx)
    native, bodies = prove_ops(runner, 1e-5)
    assert (native.name, bool(native.wrong)) == ("native", kernel)
    assert (bodies.name, bool(bodies.wrong)) == ("bodies", body)
    assert bodies.foreign == (("TokenMatch",) if body else ())
    for line in (*native.wrong, *bodies.wrong):
        assert line.startswith("TokenMatch (node block0/TokenMatch): map differs on ")


def test_validate_names_the_function_and_the_node(wrong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two files with the same wrong body agree with each other; the body by itself shows."""
    options = ("--data", DIGITS, "--limit", 4, "--batch", 4)
    done = run(capsys, "validate", wrong, wrong, *options)
    assert done.code == 1
    said = " ".join((done.out + done.err).split())
    assert "numeric: wrong bodies" in said
    assert "TokenMatch (node block0/TokenMatch): map differs on" in said
    assert "function bodies wrong" in said


def test_a_body_that_others_wrote_passes_if_it_computes_the_same(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    theirs = changed(digits_onnx, tmp_path / "theirs.onnx", _other_names)
    report = tmp_path / "report.json"
    done = run(capsys, "validate", digits_onnx, theirs, "--data", DIGITS, "--limit", 4, "--batch", 4, "--json", report)
    assert done.code == 0, done.out
    assert "written otherwise than by this version: TokenMatch" in " ".join(done.out.split())
    assert "function bodies proved (with the model and by" in " ".join(done.out.split())
    import json

    (row,) = json.loads(report.read_text())["realisations"]
    assert (row["name"], row["levels"], row["wrong"], row["foreign"]) == ("bodies", True, [], ["TokenMatch"])


def test_weights_that_a_body_forgets(digits_onnx: Path, tmp_path: Path):
    path = changed(digits_onnx, tmp_path / "forgets.onnx", _forget_the_weights)
    (bodies,) = prove_ops(open_runner(path), 1e-5)
    (line,) = bodies.wrong
    assert line.startswith("TokenReduce (node block0/TokenReduce): y differs on")
    assert "wsum differs on" in line


def test_quantize_refuses_a_file_with_a_wrong_body(wrong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "int8.onnx"
    done = run(capsys, "quantize", wrong, "--int8", "-o", output, "--data", DIGITS, "--images", 4, "--eval-images", 4)
    assert done.code != 0
    assert not output.exists()
    assert "a reduction op does not compute what it should: TokenMatch (node block0/TokenMatch)" in " ".join(
        done.err.split()
    )


def test_export_refuses_what_its_own_bodies_get_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tmdeploy.export import ExportRequest, export_checkpoint
    from tmdeploy.graph import attach_bodies

    real = attach_bodies.function_body

    def planted(op: str, attributes: dict, opset: int) -> onnx.FunctionProto:
        body = real(op, attributes, opset)
        if op == "TokenReduce":
            next(node for node in body.node if list(node.output) == ["wsum"]).op_type = "Sub"
        return body

    monkeypatch.setattr(attach_bodies, "function_body", planted)
    output = tmp_path / "digits.onnx"
    with pytest.raises(ExportError, match=r"TokenReduce \(node block0/TokenReduce\): "):
        export_checkpoint(ExportRequest(checkpoint=EXAMPLES / "digits_tome.pt", output=output))
    assert not output.exists()


def test_files_without_nodes_of_the_op_set_have_one_realisation(
    exported: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    portable = exported("tome", lowering="portable")
    assert prove_ops(open_runner(portable), 1e-5) == ()
    done = run(capsys, "validate", portable, portable, "--random", 2, "--batch", 2)
    assert done.code == 0
    assert "standard ops in the file proved (with the model)" in " ".join(done.out.split())


def test_absurd_attributes_are_named(digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A prefix of 2**40 tokens would be written out in the body that is compared with."""

    def absurd(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "TokenMatch":
                next(entry for entry in node.attribute if entry.name == "num_prefix").i = 2**40

    path = changed(digits_onnx, tmp_path / "absurd.onnx", absurd)
    (bodies,) = prove_ops(open_runner(path), 1e-5)
    assert bodies.wrong == ("TokenMatch (node block0/TokenMatch): num_prefix is 1099511627776",)


def test_calls_that_differ_are_run_one_by_one(digits_onnx: Path):
    model = onnx.load(digits_onnx)
    assert [call.op for call in op_calls(model)] == ["TokenMatch", "TokenReduce"]
    last = [node for node in model.graph.node if node.op_type == "TokenReduce"][-1]
    last.attribute.append(onnx.helper.make_attribute("mode", "sum"))
    assert [call.op for call in op_calls(model)] == ["TokenMatch", "TokenReduce", "TokenReduce"]


def test_inputs_are_the_same_at_every_call():
    step = StepRecord(
        block=0, op="TokenMatch", num_prefix=1, tokens_in=50, tokens_out=40, map="m", index="i", signal="s", x_in="x",
        x_out="y",
    )  # fmt: skip
    first, second = (op_inputs("TokenMatch", ("metric", "slots"), {}, (step,), half=False) for _ in range(2))
    assert {feeds["metric"].shape[1] for feeds in first} == {9, 24, 50}
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours["metric"], theirs["metric"])
    assert realisations._same("map", np.zeros(2), np.zeros(3), 1.0) is False
