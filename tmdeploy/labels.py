"""Class names from a file, and the classes that the names of images speak of."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tmdeploy.errors import DataError


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names: text with one a line, a JSON list, or a JSON object from index to name (or [id, name]).

    The line's number is the class: an empty line between others is a class without a name.

    Raises:
        DataError: The file is missing, has no names, or is of another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path, remedy="Check --class-names") from None
    except UnicodeDecodeError:
        raise DataError("is no text file", path=path, remedy="Give one class name a line, or JSON") from None
    is_json = path.suffix.lower() == ".json"
    names = _from_json(text, path) if is_json else tuple(map(str.strip, text.rstrip().split("\n")))
    if not any(names):
        raise DataError("has no class names", path=path, remedy="Give one class name a line, or JSON")
    return names


def name_of(index: int, names: Sequence[str]) -> str:
    """The name of a class, or its index as text."""
    return (names[index] if index < len(names) else "") or str(index)


def labels_of(
    paths: Sequence[Path], *, class_names: Sequence[str] = (), num_classes: int | None = None
) -> tuple[int | None, ...]:
    """The class of every image, as far as its name or its folder's tells.

    Taken from the first of these that says something: a folder named by a class; as many folders side by side as there
    are classes, in sorted order (the ImageNet layout); a file name that begins with an index
    (`207_n02099601_golden_retriever.jpg`, `7_0.png`); a folder named by an index.

    Args:
        paths: All images: the folders are counted.
        class_names: The model's; a name that two classes share (ImageNet's two cranes) says nothing.
        num_classes: The model's; a number beyond it (`2024_holiday.jpg`) is no class. None: any number is one.

    Returns:
        One an image; None where nothing tells.
    """
    by_name = {name: index for index, name in enumerate(class_names) if list(class_names).count(name) == 1}
    folders = sorted({path.parent for path in paths})
    in_order: dict[Path, int] = {}
    numbered = all(folder.name.isdigit() for folder in folders)
    if len(folders) == num_classes and len({folder.parent for folder in folders}) == 1 and not numbered:
        in_order = {folder: index for index, folder in enumerate(folders)}

    def label(path: Path) -> int | None:
        if path.parent.name in by_name:
            return by_name[path.parent.name]
        if path.parent in in_order:
            return in_order[path.parent]
        begin = re.match(r"(\d+)[_-]", path.name)
        digits = begin.group(1) if begin else path.parent.name
        if not re.fullmatch(r"[0-9]{1,9}", digits):
            return None
        index = int(digits)
        return index if num_classes is None or index < num_classes else None

    return tuple(map(label, paths))


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        document = json.loads(text)
        if isinstance(document, dict):
            by_index = {int(key): value for key, value in document.items()}
            document = [by_index[index] for index in range(len(by_index))]
        if not isinstance(document, list):
            raise TypeError
        return tuple(str(entry[-1] if isinstance(entry, list) else entry) for entry in document)
    except (ValueError, TypeError, KeyError, IndexError):
        raise DataError(
            "is no list of class names", path=path, remedy='Give a JSON list, or an object {"0": "tench", ...}'
        ) from None
