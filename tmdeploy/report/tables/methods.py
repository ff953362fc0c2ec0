"""The table of reduction methods."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tmdeploy.methods import MethodInfo, methods
from tmdeploy.report.tables.table import plain_table
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.table import Table


def methods_document() -> dict[str, Any]:
    """All methods as JSON, schema `tmdeploy.methods/1`."""
    return {"schema": "tmdeploy.methods/1", "methods": [_row(info) for info in methods()]}


def methods_table() -> Table:
    """All methods as a table."""
    table = plain_table("Reduction methods")
    table.show_lines = True
    for column in ("method", "what it does", "default", "options (-O key=value)"):
        table.add_column(column, overflow="fold")
    for info in methods():
        row = _row(info)
        kind, layers = row["schedule"], row["default_layers"]
        blocks = "every block" if layers is None else "blocks " + ", ".join(map(str, layers))
        default = "" if kind is None else f"--{kind} {row['default_amount']}\n{blocks}"
        options = "\n".join(map(_option_text, row["options"]))
        table.add_row(styled((info.name, "bold")), styled(f"{info.summary}\n", (info.source, "dim")), default, options)
    return table


def _row(info: MethodInfo) -> dict[str, Any]:
    spec = info.build(info.options())
    kinds = typing.get_type_hints(info.options)
    return {
        "name": info.name,
        "summary": info.summary,
        "source": info.source,
        "schedule": spec.schedule_kind,
        "default_amount": spec.default_amount if spec.schedule_kind else None,
        "default_layers": spec.default_layers,
        "options": [
            {
                "name": option.name,
                "default": option.default,
                "choices": list(typing.get_args(kinds[option.name])),
                "help": option.metadata.get("help", ""),
            }
            for option in dataclasses.fields(info.options)
        ],
    }


def _option_text(option: Mapping[str, Any]) -> str:
    """`weight=size (or mean): what it does`."""
    others = ", ".join(str(choice) for choice in option["choices"] if choice != option["default"])
    return f"{option['name']}={option['default']}{f' (or {others})' if others else ''}: {option['help']}"
