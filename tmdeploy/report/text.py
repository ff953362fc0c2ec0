"""Text for a terminal. File names and the content of files are never interpreted as markup.

A string is printed as it is, brackets included; `styled` makes the few words that have a colour.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# Control characters but tab and line feed, bidirectional controls, and surrogates (bytes that are not UTF-8).
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile("[\t\n]")
# Replacements for terminals without these characters.
_PLAIN = {"→": "->", "≤": "<=", "≥": ">=", "…": "...", "█": "#", "░": ".", "≈": "~", "—": "-", "─": "-"}


def printable(text: str) -> str:
    r"""Text without control characters: an escape character becomes the four characters `\x1b`."""
    return _UNPRINTABLE.sub(_escaped, text)


def one_line(text: str) -> str:
    """Like `printable`, without line breaks and tabs: for one row of a table."""
    return _BREAKS.sub(_escaped, printable(text))


def encodable(text: str, encoding: str) -> str:
    """Text with characters that an encoding lacks replaced, before a table is laid out."""
    return text.encode(encoding, "tmdeploy").decode(encoding)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of which some parts have a style: `styled(("FAILED", "bold red"), f": {reason}")`."""
    from rich.text import Text

    return Text.assemble(
        *(printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    )


def never_fail_to_print() -> None:
    """Let stdout and stderr replace characters that their encoding lacks, instead of losing the rest of a report."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="tmdeploy")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or _escape(letter) for letter in missing), error.end


codecs.register_error("tmdeploy", _replaced)


def _escaped(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
