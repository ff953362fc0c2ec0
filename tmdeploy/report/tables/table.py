"""The one look of all tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def plain_table(title: str | None = None) -> Table:
    """A table with a line under its head and nothing else: it fits 80 columns, and pastes well."""
    from rich import box
    from rich.table import Table

    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def facts_table(title: str) -> Table:
    """Names and values, one pair a line."""
    table = plain_table(title)
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
