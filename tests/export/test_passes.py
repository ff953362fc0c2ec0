"""Passes of others, run within an export: the comparison covers what they did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import tmdeploy
from tests.distributions import write_distribution
from tests.export.exporting import save_tiny
from tests.vits import tiny_vit
from tmdeploy.errors import ExportError, UsageError
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.export.write import ExportResult
from tmdeploy.graph import Change
from tmdeploy.graph.registered import PASSES

PACKAGE = """
from tmdeploy.graph import Change

class Gelu:
    name = "tanh-gelu"

    def __call__(self, model):
        found = [node for node in model.graph if node.op_type == "Gelu"]
        for node in found:
            node.attributes.add(__import__("onnx_ir").AttrString("approximate", "tanh"))
        return model, Change(self.name, "GELU is approximated", {"nodes": len(found)}, ("It rounds more.",))

gelu = Gelu()
"""


class _Pass:
    def __init__(self, change: Callable[[ir.Model], None]) -> None:
        self.name, self._change = "a-pass", change

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Change]:
        self._change(model)
        return model, Change(self.name, "something changed", {"nodes": 1})


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., ExportResult]:
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(depth=1), "topk", layers=[0]), tmp_path)

    def run(*passes: object, **more: object) -> ExportResult:
        request = ExportRequest(checkpoint=checkpoint, output=tmp_path / "m.onnx", passes=passes, **more)
        return export_checkpoint(request)

    return run


def _double_the_logits(model: ir.Model) -> None:
    logits = model.graph.outputs[0]
    made = ir.node("Add", [logits, logits], name="twice")
    made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = "twice", logits.type, logits.shape
    model.graph.append(made)
    model.graph.outputs[0] = made.outputs[0]


def _rename_the_plan(model: ir.Model) -> None:
    next(value for node in model.graph for value in node.outputs if value.name == "block0/map").name = "mine"


def _fail(_: ir.Model) -> None:
    raise RuntimeError("no such node\nmore of it")


def test_a_pass_of_another_package_is_found_by_its_name(
    export: Callable[..., ExportResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    points = {"tmdeploy.graph_passes": {"tanh-gelu": "tanh_gelu:gelu"}}
    monkeypatch.syspath_prepend(write_distribution(tmp_path / "site", "tanh-gelu", points, {"tanh_gelu": PACKAGE}))
    PASSES.forget()
    try:
        result = export("tanh-gelu", verify=False)
        with pytest.raises(UsageError, match=r"no graph pass 'tanh'\. Installed are: tanh-gelu"):
            export("tanh")
    finally:
        PASSES.forget()
    assert result.notes[-2:] == ("tanh-gelu: GELU is approximated (nodes: 1)", "It rounds more.")
    (gelu,) = [node for node in onnx.load(result.path).graph.node if node.op_type == "Gelu"]
    assert onnx.helper.get_node_attr_value(gelu, "approximate") == b"tanh"


def test_no_package_has_one(export: Callable[..., ExportResult]):
    with pytest.raises(UsageError, match=r"no graph pass 'tanh'\. No installed package brings any"):
        export("tanh")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_double_the_logits, r"m\.onnx: the exported file does not compute what PyTorch computes: model level"),
        (_rename_the_plan, r"m\.onnx: the graph pass 'a-pass' took away the tensor 'block0/map', .*Export without it"),
        (_fail, r"m\.onnx: the graph pass 'a-pass' failed \(no such node\)\. Export without it"),
    ],
)
def test_a_pass_that_breaks_the_file_leaves_none(
    change: Callable[[ir.Model], None], message: str, export: Callable[..., ExportResult], tmp_path: Path
):
    with pytest.raises(ExportError, match=message):
        export(_Pass(change))
    assert not (tmp_path / "m.onnx").exists()
