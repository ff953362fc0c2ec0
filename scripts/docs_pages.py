"""Pages of the documentation site that are made when it is built (a mkdocs hook, named in mkdocs.yml).

`reference/cli.md` is read from the Typer application, `reference/python.md` from the public names of `tmdeploy`.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import typer.main
from tmdeploy_cli.app import build_app

import tmdeploy


def on_files(files: Any, config: Any) -> Any:
    """Add the pages (called by mkdocs)."""
    from mkdocs.structure.files import File  # mkdocs is there when mkdocs calls

    for path, content in (("reference/cli.md", cli_page()), ("reference/python.md", python_page())):
        files.append(File.generated(config, path, content=content))
    return files


def cli_page() -> str:
    """Every command with its arguments and options, in Markdown: the text of `--help`."""
    app = typer.main.get_command(build_app())
    context = app.make_context("tmdeploy", [], resilient_parsing=True)
    lines = ["# Command line", "", *_prose(app.help), *_options(app, context)]
    for name, command in app.commands.items():  # type: ignore[attr-defined]
        lines += [f"## tmdeploy {name} {{ #{name} }}", ""]
        lines += [*_prose(command.help), *_options(command, type(context)(command, info_name=name, parent=context))]
    return "\n".join([*lines, "## Exit codes", "", *_prose(app.epilog)])


def _prose(text: str | None) -> Iterator[str]:
    """Paragraphs of a docstring; those that are a command line as code."""
    for paragraph in re.split(r"\n\s*\n", (text or "").strip()):
        if paragraph.startswith("tmdeploy "):
            yield from ("```console", *(f"$ {line.strip()}" for line in paragraph.splitlines()), "```", "")
        else:
            yield from (html.escape(" ".join(paragraph.split())), "")


def _options(command: Any, context: Any) -> Iterator[str]:
    """A definition list, in HTML: what these texts hold is not Markdown."""
    yield "<dl class='options'>"
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            names, text = record
            if parameter.param_type_name == "argument":
                names = names.partition(" <")[0]  # without its Python type, as in --help
            yield f"<dt><code>{html.escape(names)}</code></dt><dd>{html.escape(' '.join(text.split()))}</dd>"
    yield from ("</dl>", "")


def public_objects() -> dict[str, Any]:
    """Whatever `tmdeploy` exports, by name, without the version."""
    return {name: getattr(tmdeploy, name) for name in tmdeploy.__all__ if not name.startswith("__")}


def python_page() -> str:
    """The public names, each for mkdocstrings to fill from its docstring."""
    lines = ["# Python", "", *_prose(inspect.getdoc(tmdeploy))]
    for name, found in public_objects().items():
        function = inspect.unwrap(found.__call__) if isinstance(found, ModuleType) else found
        lines += [f"## tmdeploy.{name} {{ #{name} }}", "", f"::: {function.__module__}.{function.__qualname__}", ""]
    return "\n".join(lines)
