"""Distributions that are only folders: what pip leaves behind, without pip."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from pathlib import Path


def write_distribution(
    folder: Path, name: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str] | None = None
) -> Path:
    """A folder for sys.path with modules and the dist-info that names their entry points.

    Args:
        folder: Where; made if it is not there.
        name: Of the distribution.
        points: Entry points by group: name to `module:object`.
        modules: Python text by module.
    """
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, entries in points.items()
        for line in (f"[{group}]", *(f"{point} = {value}" for point, value in entries.items()), "")
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, text in (modules or {}).items():
        (folder / f"{module}.py").write_text(text)
    return folder


def write_guide(folder: Path) -> Path:
    """The package of docs/guide/extending.md: every code block with a file's name is that file."""
    text = (Path(__file__).parent.parent / "docs" / "guide" / "extending.md").read_text(encoding="utf-8")
    files = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL))
    project = configparser.ConfigParser(delimiters=("=",))  # Python 3.10 has no tomllib
    project.optionxform = str  # type: ignore[assignment, method-assign]
    project.read_string(files.pop("pyproject.toml"))
    points = {
        section.removeprefix("project.entry-points.").strip('"'): {
            name: value.strip('"') for name, value in project[section].items()
        }
        for section in project.sections()
        if section.startswith("project.entry-points.")
    }
    write_distribution(folder, "vit-extras", points)
    for title, code in files.items():
        (folder / title).parent.mkdir(exist_ok=True)
        (folder / title).write_text(code)
    return folder
