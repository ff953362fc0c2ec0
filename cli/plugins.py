"""`tmdeploy plugins`: the op set as native code."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from .console import JsonOption, Output, progress


class Action(str, enum.Enum):
    """What to do."""

    build = "build"
    list = "list"


def plugins(
    action: Annotated[Action, typer.Argument(help="build: compile them here. list: where they are looked for.")],
    ort: Annotated[bool, typer.Option("--ort/--no-ort", help="The custom-op library for ONNX Runtime.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for what is built. Default: where it is found.")
    ] = None,
    fetch_headers: Annotated[
        bool, typer.Option("--fetch-headers", help="Download ONNX Runtime's C headers if they are not here.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Build or list the native libraries, which run the reduction steps several times faster than function bodies.

    [dim]tmdeploy plugins build --ort[/dim]
    """
    out = Output(json)
    if action is Action.list:
        _list(out)
    elif ort:
        _build(out, output, fetch_headers)


def _build(out: Output, output: Path | None, fetch_headers: bool) -> None:
    from tmdeploy.native.build import build_ort
    from tmdeploy.native.headers import download_ort_headers, find_ort_headers

    with progress() as tell:
        if fetch_headers and find_ort_headers() is None:
            tell("downloading ONNX Runtime's headers")
            download_ort_headers()
        made = build_ort(output, progress=tell)
    out.console.print(f"wrote {made}")
    if output is not None:
        out.console.print(f"Use it with: export TMDEPLOY_ORT_LIBRARY={made.resolve()}")
    out.emit({"schema": "tmdeploy.plugins/1", "built": [str(made)]})


def _list(out: Output) -> None:
    from rich.table import Table

    from tmdeploy.native.build import load_problem
    from tmdeploy.native.library import ort_libraries, ort_library

    used = ort_library()
    table = Table(title="Libraries for ONNX Runtime, in the order they are looked at", title_justify="left")
    for column in ("state", "file", "where it is from"):
        table.add_column(column, overflow="fold")
    rows = []
    for place in ort_libraries():
        problem = load_problem(place.path) if place.exists else "absent"
        state = problem or ("used" if used == place else "works, not used")
        rows.append({"path": str(place.path), "origin": place.origin, "state": state})
        table.add_row(state, str(place.path), place.origin)
    out.console.print(table)
    out.emit({"schema": "tmdeploy.plugins/1", "libraries": rows})
