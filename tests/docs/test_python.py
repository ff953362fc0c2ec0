"""The programs of docs/guide/python.md, run as they stand there, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tmdeploy
from tests.conftest import EXAMPLES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "guide" / "python.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for program in PROGRAMS:
        exec(compile(program, "python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "\n3\n" in printed  # the digit
    assert "tracing the model\n" in printed
    written = {path.name for path in tmp_path.iterdir()} - {"examples"}
    assert written == {"digits.onnx", "digits.int8.onnx", "again.onnx", "groups.png"}


def test_every_verb_has_an_example():
    verbs = {name for name in tmdeploy.__all__ if name.islower()} - {"__version__", "add_scales", "patch"}
    assert {name for name in verbs if f"tmdeploy.{name}" not in PAGE} == set()
