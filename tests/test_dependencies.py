"""Dependencies between the packages point one way (docs/architecture.md), lazy imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tmdeploy

ROOT = Path(tmdeploy.__file__).parent
# A package may import those of the rows above its own.
RANKS = (
    {"ops", "methods", "native"},
    {"models", "graph", "tensorrt_plugin"},
    {"patching", "engine"},
    {"backends"},
    {"validate", "bench"},
    {"export", "quantize"},
    {"report"},
)
RANK = {package: number for number, row in enumerate(RANKS) for package in row}


def _imported(path: Path) -> set[str]:
    """Packages of ours that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = (name.split(".") for name in names if name.startswith("tmdeploy."))
    return {part[1] for part in parts} & set(RANK)


def test_every_package_has_a_rank():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(RANK)


@pytest.mark.parametrize("package", sorted(RANK))
def test_a_package_imports_only_what_stands_below_it(package: str):
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in modules
        if (found := {name for name in _imported(path) if RANK[name] >= RANK[package]} - {package})
    }
    assert wrong == {}


def test_nothing_imports_the_command_line():
    for path in ROOT.rglob("*.py"):
        assert "tmdeploy_cli" not in path.read_text(), path
