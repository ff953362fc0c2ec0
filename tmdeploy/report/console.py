"""The console that everything is printed on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from tmdeploy.report.text import encodable, printable


class PlainConsole(Console):
    """A console that prints strings as they are: no markup, emoji codes, highlighting or control characters."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, quiet=quiet, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string literally; Rich calls this for every string in sentences, tables and titles."""
        return super().render_str(encodable(printable(text), self.encoding), **options)
