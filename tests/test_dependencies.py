"""Dependencies point one way (docs/architecture.md), those of modules at the root and lazy imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmdeploy

ROOT = Path(tmdeploy.__file__).parent
# A part may import those of the rows above its own. Parts are packages, or modules at the root.
RANKS = (
    {"errors"},
    {"lazy", "extensions"},
    {"system"},
    {"ops", "methods", "native", "tensorrt.cuda"},
    {"card", "tensorrt.plugin"},
    {"tensorrt.sdk"},
    {"data", "graph", "models", "tensorrt.record"},
    {"report.schemas", "report.text"},
    {"patching", "tensorrt.run"},
    {"tensorrt.build", "tensorrt.explain"},
    {"tensorrt"},
    {"backends"},
    {"validate", "bench"},
    {"export", "quantize"},
    {"inspection", "inference", "drawing", "doctor"},
    {"api"},
    {"report"},
    {""},  # tmdeploy/__init__.py, the public face
)
RANK = {part: number for number, row in enumerate(RANKS) for part in row}


def _part(module: str) -> str:
    """`tensorrt.run` for `tmdeploy.tensorrt.run.session`: the longest name that has a rank; fails if none has."""
    names = module.split(".")[1:]
    for end in range(len(names), -1, -1):
        if (name := ".".join(names[:end])) in RANK and (name or not names):
            return name
    pytest.fail(f"{module} has no rank")


def _module(path: Path) -> str:
    return ".".join(["tmdeploy", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {_module(path): path for path in sorted(ROOT.rglob("*.py"))}


def _imported(module: str) -> Iterator[str]:
    """Modules of ours that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tmdeploy":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tmdeploy."))


@pytest.mark.parametrize("part", sorted(RANK))
def test_a_part_imports_only_what_stands_below_it(part: str):
    modules = [module for module in MODULES if _part(module) == part]
    assert modules
    wrong = {
        module: found
        for module in modules
        if (found := {name for name in _imported(module) if name in MODULES and _turned_round(name, part)})
    }
    assert wrong == {}


def _turned_round(imported: str, part: str) -> bool:
    other = _part(imported)
    return other not in {part, ""} and RANK[other] >= RANK[part]


def test_nothing_imports_the_command_line():
    for path in ROOT.rglob("*.py"):
        assert "tmdeploy_cli" not in path.read_text(), path


@pytest.mark.parametrize("folder", ["scripts", "benchmarks"])
def test_scripts_do_not_import_tests(folder: str):
    for path in (ROOT.parent / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.partition(".")[0] == "tests"], path
