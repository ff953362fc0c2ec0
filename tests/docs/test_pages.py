"""The pages that are made from the code (scripts/docs_pages.py), and the links that mkdocs does not check."""

from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from tmdeploy_cli.app import COMMANDS

from scripts.docs_pages import cli_page, find, on_page_markdown, public_names, python_page, results_page
from tests.cli.running import run
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ModelCard
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.report.schemas.bench import BenchReport
from tmdeploy.report.schemas.quantize import QuantizeReport
from tmdeploy.report.schemas.validation import ValidationReport
from tmdeploy.tensorrt.record.layers import LayerFile
from tmdeploy.tensorrt.record.sidecar import EngineRecord

ROOT = Path(__file__).parent.parent.parent
OUTSIDE = ("README.md", "CONTRIBUTING.md")  # the documentation that mkdocs does not see


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_documented(name: str) -> None:
    path = public_names()[name]
    found = find(path)
    text = inspect.getdoc(found) or ""
    assert text.partition("\n")[0].endswith("."), f"tmdeploy.{name} has no docstring that begins with a sentence"
    assert f"::: {path}\n    options:\n      heading: tmdeploy.{name}\n" in python_page()
    if inspect.isfunction(found):
        described = re.findall(r"^ +(\w+): ", text.partition("\nArgs:\n")[2], re.MULTILINE)
        undescribed = [parameter for parameter in inspect.signature(found).parameters if parameter not in described]
        assert undescribed == [], f"tmdeploy.{name}: not under Args: {', '.join(undescribed)}"


@pytest.mark.parametrize("report", [BenchReport, QuantizeReport, ValidationReport])
def test_results_are_documented_field_by_field(report: type[BaseModel]) -> None:
    (section,) = re.findall(rf"^### {report.__name__} .*?</table>", results_page(), re.MULTILINE | re.DOTALL)
    written = report.model_json_schema(by_alias=True, mode="serialization")["properties"]
    assert [name for name in written if f"<td><code>{name}</code></td>" not in section] == []


def test_artifact_formats_are_documented_field_by_field() -> None:
    page = on_page_markdown((ROOT / "docs" / "formats.md").read_text(), None, None, None)
    sections = dict(re.findall(r"^### (\w+) .*?$(.*?)</table>", page, re.MULTILINE | re.DOTALL))
    for model in (ModelCard, VitConfig, ArtifactMetadata, EngineRecord, LayerFile):
        written = model.model_json_schema(by_alias=True, mode="serialization")["properties"]
        assert [name for name in written if f"<td><code>{name}</code></td>" not in sections[model.__name__]] == []
    assert "<!--" not in page


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_on_the_page(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, command, "--help").out
    (section,) = re.findall(rf"^## tmdeploy {command} .*?(?=^## )", cli_page(), re.MULTILINE | re.DOTALL)
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown, re.MULTILINE)
    assert "--help" in options
    assert [option for option in options if not re.search(rf"{option}\b", section)] == []


@pytest.mark.parametrize("page", OUTSIDE)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_pages_named_in_code_exist() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), page)
        for folder in ("tmdeploy", "cli", "tests", "scripts", "plugins", "docker")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".sh", ".h", ".cuh", ".cu", ".cpp", ".cpu", ".gpu"}
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(errors="replace"))
    }
    assert named
    assert sorted((path, page) for path, page in named if not (ROOT / page).exists()) == []


def test_python_names_in_pages_exist() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / page for page in OUTSIDE)]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"(?<![\w/.\"'])tmdeploy(?!\.tar\b)(?:\.[A-Za-z_]\w*)+\b(?![-/])", page.read_text())
    }
    assert {("own-module.md", "tmdeploy.patch"), ("own-module.md", "tmdeploy.export")} <= named
    assert sorted((page, name) for page, name in named if not _exists(name)) == []


def _exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True
