import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributions import write_distribution
from tmdeploy.backends import BACKENDS, backend_for
from tmdeploy.errors import UsageError
from tmdeploy.extensions import ExtensionWarning, Table
from tmdeploy.graph.registered import PASSES
from tmdeploy.methods import METHODS, MethodInfo
from tmdeploy.models.formats import FORMATS, CheckpointFormat

TABLES = (METHODS, BACKENDS, FORMATS, PASSES)
METHOD = """
from dataclasses import dataclass
from tmdeploy.methods import MethodSpec, method

@dataclass(frozen=True)
class Options: ...

@method({name!r}, summary="nothing", source="a test", options=Options)
def it(options):
    return MethodSpec({name!r}, planner=None)
"""


@pytest.fixture(autouse=True)
def _forget():
    yield
    for table in TABLES:
        table.forget()


def _install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.syspath_prepend(folder)
    for table in TABLES:
        table.forget()


def test_a_distribution_adds_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    points = {METHODS.group: {"idle": "idle_a:it"}}
    _install(monkeypatch, write_distribution(tmp_path, "idle-vit", points, {"idle_a": METHOD.format(name="idle")}))
    found = METHODS.get("idle")
    assert found is not None
    assert found in METHODS.installed()
    assert "idle" in [info.name for info in METHODS]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("not_there:it", "ModuleNotFoundError: No module named 'not_there'"),
        ("idle_b:nothing", "AttributeError: module 'idle_b' has no attribute 'nothing'"),
        ("os:sep", "it is a str, not a MethodInfo"),
        ("raises:it", "RuntimeError: no such luck"),
        ("leaves:it", "SystemExit: 3"),
        ("idle_b:it", "the name 'tome' is taken"),
    ],
)
def test_a_broken_one_is_left_out_in_one_line(value: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    modules = {
        "idle_b": METHOD.format(name="tome"),
        "raises": "raise RuntimeError('no such\\nluck')",
        "leaves": "raise SystemExit(3)",
        "idle_c": METHOD.format(name="idle"),
    }
    points = {METHODS.group: {"first": value, "second": "idle_c:it"}}
    _install(monkeypatch, write_distribution(tmp_path, "broken-vit", points, modules))
    names = {"tome", "evit"}
    with pytest.warns(ExtensionWarning) as heard:
        found = {info.name for info in METHODS}
    for name in modules:
        sys.modules.pop(name, None)
    assert [str(one.message) for one in heard] == [f"'first' of broken-vit is left out of tmdeploy.methods: {told}"]
    assert names | {"idle"} <= found  # the rest of that distribution, too
    assert {info.name for info in METHODS} == found  # told once


def test_what_is_ours_is_found_without_asking_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    groups = {table.group: {"broken": "not_there:it"} for table in TABLES}
    _install(monkeypatch, write_distribution(tmp_path, "broken-vit", groups))
    assert METHODS.get("tome") is not None
    assert backend_for(Path("model.onnx")).name == "onnxruntime"
    assert backend_for(Path("model.engine"), "tensorrt").name == "tensorrt"
    assert backend_for(Path("model.pt")).name == "pytorch"
    with pytest.warns(ExtensionWarning, match="broken-vit is left out of tmdeploy.methods"):
        assert METHODS.get("tomee") is None


def test_an_entry_can_be_added_in_python():
    info = METHODS.get("tome")
    assert info is not None
    with pytest.raises(UsageError, match=r"tmdeploy\.methods has 'tome' already"):
        METHODS.add(info)
    fresh = MethodInfo("tome2", info.summary, info.source, info.options, info.build)
    METHODS.add(fresh)
    assert METHODS.get("tome2") is fresh
    METHODS.forget()
    assert METHODS.get("tome2") is None


def test_own_names_are_unique():
    for table in TABLES:
        names = [entry.name for entry in table._built_in()]
        assert len(set(names)) == len(names)


def test_the_first_that_fits_is_found():
    rows = [CheckpointFormat(name, (".x",), "none", lambda _: False) for name in ("one", "two")]
    table = Table("tmdeploy.checkpoint_formats", CheckpointFormat, lambda: rows)
    assert table.find(lambda row: ".x" in row.suffixes) is rows[0]


def _tmdeploy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import tmdeploy_cli; tmdeploy_cli.main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
    )


def test_the_command_line_survives_a_broken_distribution(tmp_path: Path):
    groups = {table.group: {"broken": "not_there:it"} for table in TABLES}
    write_distribution(tmp_path, "broken-vit", groups)
    helped = _tmdeploy(tmp_path, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    listed = _tmdeploy(tmp_path, "methods")
    line = "'broken' of broken-vit is left out of tmdeploy.methods: ModuleNotFoundError: No module named 'not_there'"
    assert (listed.returncode, listed.stderr) == (0, f"warning: {line}\n")
    assert "tome" in listed.stdout
