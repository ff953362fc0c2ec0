"""Pages of the documentation site that are made when it is built (a mkdocs hook, named in mkdocs.yml).

`reference/cli.md` is made from the Typer application, `reference/python.md` from the public names of `tmdeploy`, and
`reference/results.md` from the documents in `tmdeploy/report/schemas`.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import typer.main
from pydantic import BaseModel
from tmdeploy_cli.app import build_app

import tmdeploy.errors
import tmdeploy.report.schemas

_RESULTS = "tmdeploy.report.schemas."
_RESULTS_ARE = (
    "The functions of [`tmdeploy`](python.md) return frozen pydantic models; `to_json()` is what `--json` writes."
)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages (called by mkdocs)."""
    from mkdocs.structure.files import File  # mkdocs is there when mkdocs calls

    pages = {"cli": cli_page(), "python": python_page(), "results": results_page()}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
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


def python_page() -> str:
    """The public names of `tmdeploy`, and what they take and return, for mkdocstrings to fill from docstrings."""
    names = public_names()
    functions = {name: path for name, path in names.items() if name[0].islower()}
    used = {path for place in functions.values() for path in _classes_of(place)} - set(names.values())
    classes = {path.rpartition(".")[2]: path for path in sorted(used) if not path.startswith(_RESULTS)}
    lines = ["# Python", "", *_prose(inspect.getdoc(tmdeploy)), "Results are on a page of [their own](results.md).", ""]
    errors = {name: f"tmdeploy.errors.{name}" for name, found in vars(tmdeploy.errors).items() if _is_error(found)}
    for title, part in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        lines += [f"## {title}", ""]
        for name, path in part.items():
            lines += [f"::: {path}", "    options:", f"      heading: {'tmdeploy.' * (name in names)}{name}", ""]
    return "\n".join(lines)


def results_page() -> str:
    """Every document that `--json` writes and a function returns, field by field."""
    lines = ["# Results", "", _RESULTS_ARE, ""]
    for name in sorted(found.name for found in pkgutil.iter_modules(tmdeploy.report.schemas.__path__)):
        module = importlib.import_module(_RESULTS + name)
        models = [found for found in vars(module).values() if _is_model(found) and found.__module__ == module.__name__]
        lines += [f"## {name.capitalize()}", "", *_prose(inspect.getdoc(module)), *_models(models)]
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the fields of documents where a page asks for them: `<!-- fields: dotted.path -->` (called by mkdocs)."""
    del page, config, files
    shown: list[type[BaseModel]] = []

    def tables(asked: re.Match[str]) -> str:
        new = [model for model in _with_parts(find(asked[1])) if model not in shown]
        shown.extend(new)
        return "\n".join(_models(new))

    return re.sub(r"<!-- fields: ([\w.]+) -->", tables, markdown)


def _with_parts(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model, then those that its fields hold, each once."""
    found = [model]
    for outer in found:  # which grows
        kinds = [field.annotation for field in outer.model_fields.values()]
        for kind in kinds:  # which grows, too: `tuple[Step, ...] | None` has Step inside
            kinds.extend(typing.get_args(kind))
            if _is_model(kind) and kind not in found:
                found.append(kind)
    return found


def _models(models: Sequence[type[BaseModel]]) -> Iterator[str]:
    """A heading, the docstring's first paragraphs and the fields of each."""
    for model in models:
        yield from (f"### {model.__name__} {{ #{model.__module__}.{model.__name__} }}", "")
        yield from _prose((model.__doc__ or "").partition("Attributes:")[0])
        yield from _fields(model)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """A model's fields and computed fields: name in JSON, type as it is written in the code, meaning."""
    stated = {name: text for base in reversed(model.__mro__) for name, text in inspect.get_annotations(base).items()}
    said = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(model) or "", re.MULTILINE))
    rows = [
        (field.alias or name, stated[name], field.description or said.get(name, ""))
        for name, field in model.model_fields.items()
    ]
    for name, field in model.model_computed_fields.items():
        rows.append((name, field.wrapped_property.fget.__annotations__["return"], field.description or ""))
    if rows:
        yield "<table><thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead><tbody>"
        for row in rows:
            name, kind, meaning = (html.escape(" ".join(str(text).split())) for text in row)
            yield f"<tr><td><code>{name}</code></td><td><code>{kind}</code></td><td>{meaning}</td></tr>"
        yield "</tbody></table>"
    yield ""


def public_names() -> dict[str, str]:
    """Whatever `tmdeploy` exports but its version, with the dotted path of what it is."""
    places = _imports("tmdeploy")
    return {name: places[name] for name in tmdeploy.__all__ if name != "__version__"}


def _classes_of(function: str) -> set[str]:
    """Classes of ours that a function's signature names."""
    module = function.rpartition(".")[0]
    imported = _imports(module)
    signature = inspect.signature(find(function))
    said = " ".join(str(item) for item in (signature.return_annotation, *signature.parameters.values()))
    return {imported[word] for word in re.findall(r"[A-Z]\w+", said) if imported.get(word, "").startswith("tmdeploy.")}


def _is_error(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Exception)


def _is_model(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


def find(path: str) -> Any:
    """What a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _imports(module: str) -> dict[str, str]:
    """Names that a module imports from others, for type checkers alone too, with where they are from."""
    source = inspect.getsource(importlib.import_module(module))
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
