"""Lists of long texts, broken between words only, so that paths and commands can be copied."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tmdeploy.report.text import encodable, printable, styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_NARROWEST = 30


def print_facts(title: str, rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print names and values, one paragraph per pair.

    Args:
        title: Heading.
        rows: Name and value.
        console: Output.
    """
    console.print(styled((title, "bold"), "\n"))
    names = max(len(name) for name, _ in rows)
    for name, value in rows:
        _print_row(styled((f" {name:{names}}  ", "dim")), _broken(value, console.width - names - 3), console)
    console.print()


def print_states(title: str, rows: Sequence[tuple[str, bool, str, str]], console: Console) -> None:
    """Print what works and what does not: a name, `yes` or `no`, details, and the remedy below.

    Args:
        title: Heading.
        rows: Name, whether it works, detail, remedy; the last two may be empty.
        console: Output.
    """
    console.print(styled((title, "bold"), "\n"))
    names = max(len(name) for name, *_ in rows)
    for name, works, detail, remedy in rows:
        head = styled(f" {name:{names}}  ", ("yes", "green") if works else ("no ", "red"), "  ")
        lines = _broken(detail, console.width - len(head))
        lines += _broken(f"→ {remedy}", console.width - len(head), hang="  ") if remedy else []
        _print_row(head, lines, console)
    console.print()


def _print_row(head: Text, lines: Sequence[str], console: Console) -> None:
    first, *others = lines or [""]
    console.print(head.copy().append(encodable(printable(first), console.encoding)), soft_wrap=True)
    for line in others:
        console.print(" " * len(head) + line, soft_wrap=True)


def print_places(title: str, rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print paths, each on a line of its own with a text below.

    Args:
        title: Heading.
        rows: Path and text.
        console: Output.
    """
    console.print(styled((title, "bold"), "\n"))
    for path, text in rows:
        console.print(f" {path}", soft_wrap=True)
        for line in _broken(text, console.width - 4):
            console.print(styled("    ", (line, "dim")), soft_wrap=True)
    console.print()


def _broken(text: str, width: int, *, hang: str = "") -> list[str]:
    """Break text into lines of whole words; an overlong word gets a line of its own."""
    return textwrap.wrap(
        text, max(_NARROWEST, width), subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )
