"""The spec of the op set, and that what cannot be made from it says the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tmdeploy.methods.spec import Leftover, ReduceMode
from tmdeploy.ops.reference import token_match, token_reduce, token_select
from tmdeploy.ops.spec import OPS, SELECT, MatchAttributes, ReduceAttributes, SelectAttributes

ROOT = Path(__file__).parents[2]


_SIMILARITY = "float metric_eps=0., bool deterministic=True"


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "outputs"),
    [
        ("token_match", "Tensor metric, Tensor slots", f'SymInt num_prefix=1, str order="tome", {_SIMILARITY}', 3),
        (
            "token_select",
            "Tensor score, Tensor slots, Tensor? metric=None, Tensor? kept=None",
            f'SymInt num_prefix=1, str leftover="drop", str order="score", {_SIMILARITY}',
            4,
        ),
        ("token_reduce", "Tensor x, Tensor map, Tensor index, Tensor? weight=None", 'str mode="wmean"', 2),
    ],
)
def test_pytorch_signatures_are_those_that_exported_programs_hold(
    name: str, inputs: str, attributes: str, outputs: int
):
    """A saved torch.export program names an op with its arguments by place: new attributes go last, none changes."""
    results = ", ".join(["Tensor"] * outputs)
    schema = str(getattr(torch.ops.tmdeploy, name).default._schema)
    assert schema.startswith(f"tmdeploy::{name}({inputs}, {attributes}")
    assert schema.endswith(f") -> ({results})")


def test_attributes_of_a_node_are_read_as_their_types():
    given = MatchAttributes.read({"num_prefix": 2, "metric_eps": 1, "deterministic": 0, "unknown": "x"})
    assert given == MatchAttributes(num_prefix=2, metric_eps=1.0, deterministic=False)
    values = given.values()
    assert (values["num_prefix"], values["order"], values["metric_eps"], values["deterministic"]) == (2, "tome", 1.0, 0)
    assert type(values["metric_eps"]) is float
    assert type(values["deterministic"]) is int
    codes = SelectAttributes(leftover="nearest", order="index", metric_eps=0.5).codes()
    assert (codes["leftover"], codes["order"], codes["metric_eps"], codes["deterministic"]) == (2, 1, 0.5, 1)


@pytest.mark.parametrize(
    ("attributes", "values", "message"),
    [
        (MatchAttributes, {"order": "rank"}, "TokenMatch: unknown order 'rank'"),
        (MatchAttributes, {"num_prefix": -1}, "TokenMatch: num_prefix is -1"),
        (SelectAttributes, {"num_prefix": 1025}, "TokenSelect: num_prefix is 1025"),
        (SelectAttributes, {"leftover": "keep"}, "TokenSelect: unknown leftover 'keep'"),
        (ReduceAttributes, {"mode": "median"}, "TokenReduce: unknown mode 'median'"),
        (MatchAttributes, {"deterministic": "yes"}, "invalid literal for int"),
    ],
)
def test_values_that_an_op_does_not_have_are_refused(attributes: type, values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        attributes.read(values)


def test_the_reference_refuses_them_too():
    with pytest.raises(ValueError, match="TokenMatch: num_prefix is -1"):
        token_match(torch.randn(1, 8, 4), torch.arange(6), -1)
    with pytest.raises(ValueError, match="TokenSelect: unknown order 'rank'"):
        token_select(torch.rand(1, 8), torch.arange(6), order="rank")
    with pytest.raises(ValueError, match="TokenReduce: unknown mode 'median'"):
        token_reduce(torch.randn(1, 2, 4), torch.zeros(1, 2).int(), torch.zeros(1, 1).int(), None, "median")


def test_inputs_follow_the_attributes():
    def names(leftover: str) -> list[str]:
        return [tensor.name for tensor in SELECT.inputs_for(SelectAttributes(leftover=leftover).values())]

    assert names("drop") == ["score", "slots"]
    assert names("fuse") == ["score", "slots", "kept"]
    assert names("nearest") == ["score", "slots", "metric"]


def test_methods_ask_for_nothing_that_the_ops_lack():
    assert {mode.value for mode in ReduceMode} <= set(ReduceAttributes.choices("mode"))
    assert tuple(leftover.value for leftover in Leftover) == SelectAttributes.choices("leftover")


def test_the_tables_of_the_documentation_are_current(tmp_path: Path):
    def check(root: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(root / "scripts" / "make_op_tables.py"), "--check"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = check(ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("scripts/make_op_tables.py", "docs/ops.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "ops.md"
    text = page.read_text()
    for old, new in (("`metric_eps` = 0 ", "`metric_eps` = 1 "), ("version 1", "version 2"), ("<!-- end -->", "")):
        assert old in text
        page.write_text(text.replace(old, new, 1))
        done = check(tmp_path)
        assert (done.returncode, done.stderr.endswith("Run: python scripts/make_op_tables.py\n")) == (1, True)


def test_the_registry_holds_every_op():
    assert list(OPS) == ["TokenMatch", "TokenSelect", "TokenReduce"]
    assert [spec.torch_name for spec in OPS.values()] == ["token_match", "token_select", "token_reduce"]
