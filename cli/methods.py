"""`tmdeploy methods`: which reduction methods there are."""

from __future__ import annotations

from .console import Output
from .options import JsonOption


def methods(json: JsonOption = None) -> None:
    """List the reduction methods with their options and defaults."""
    from tmdeploy.report.tables.methods import methods_document, methods_table

    out = Output(json)
    out.console.print(methods_table())
    out.emit(methods_document())
