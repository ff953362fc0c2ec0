"""Class names: from the model, or from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tmdeploy.errors import DataError


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names: text with one a line, a JSON list, or a JSON object from index to name (or [id, name]).

    Raises:
        DataError: The file is missing or of another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path, remedy="Check --class-names") from None
    except UnicodeDecodeError:
        raise DataError("is no text file", path=path, remedy="Give one class name a line, or JSON") from None
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        document = json.loads(text)
        if isinstance(document, dict):
            by_index = {int(key): value for key, value in document.items()}
            document = [by_index[index] for index in range(len(by_index))]
        if not isinstance(document, list):
            raise TypeError
        return tuple(entry[-1] if isinstance(entry, list) else str(entry) for entry in document)
    except (ValueError, TypeError, KeyError, IndexError):
        raise DataError(
            "is no list of class names", path=path, remedy='Give a JSON list, or an object {"0": "tench", ...}'
        ) from None


def name_of(index: int, names: Sequence[str]) -> str:
    """The name of a class, or its index as text."""
    return names[index] if index < len(names) else str(index)
