"""Class names from a file, and the labels that the names of images carry."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tmdeploy.errors import DataError

_NO_CLASS = {"background", "bg", "none", "dummy", "class", "classes", "name", "label", "labels"}
_WORDNET = re.compile(r"n\d{8}")


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names: text with one per line, a JSON list, or a JSON object from index to name (or [id, name]).

    The line number is the class, so an empty line in between is a class without a name.

    Raises:
        DataError: The file is missing, has no names, or has another format.
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


def check_class_names(names: Sequence[str], classes: int, *, path: Path) -> None:
    """Refuse a wrong number of names: one too many at the front would shift every label.

    Args:
        names: From a file or a model's metadata; may be empty.
        classes: Number of classes of the model.
        path: The file with the names.

    Raises:
        DataError: The numbers of names and classes differ.
    """
    if not names or len(names) == classes:
        return
    remedy = "Give one name a class, in order, with --class-names"
    if names[0].lower().strip("_ ") in _NO_CLASS and len(names) == classes + 1:
        remedy = f"Leave out its first, '{names[0]}', which is no class of this model"
    raise DataError(f"has {len(names)} class names, and the model has {classes} classes", path=path, remedy=remedy)


def name_of(index: int, names: Sequence[str]) -> str:
    """The name of a class, or its index as text."""
    return (names[index] if index < len(names) else "") or str(index)


def labels_of(
    paths: Sequence[Path], *, class_names: Sequence[str] = (), num_classes: int | None = None
) -> tuple[int | None, ...]:
    """The class of every image, as far as the name of its file or folder shows it.

    The first of these that applies decides: a folder named by a class; the order of the folders
    (`folders_in_order`); a file name that begins with an index (`207_n02099601_golden_retriever.jpg`, `7_0.png`); a
    folder named by an index.

    Args:
        paths: All images, since the number of folders counts.
        class_names: The model's; a name that two classes share (ImageNet's two cranes) decides nothing.
        num_classes: The model's; larger numbers (`2024_holiday.jpg`) are no class. None accepts any number.

    Returns:
        One label per image; None where nothing shows it.
    """
    counts = Counter(class_names)
    by_name = {name: index for index, name in enumerate(class_names[:num_classes]) if counts[name] == 1}
    in_order = folders_in_order(paths, class_names=class_names, num_classes=num_classes)

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


def folders_in_order(
    paths: Sequence[Path], *, class_names: Sequence[str] = (), num_classes: int | None = None
) -> dict[Path, int]:
    """The class of every folder by its rank among its siblings (the ImageNet layout); empty for any other layout.

    The layout applies if there are as many sibling folders as classes and they are not named by numbers. If the
    classes have names, the folders must be WordNet's (`n02099601`): ten folders of anything are not the ten classes.
    """
    folders = sorted({path.parent for path in paths})
    numbered = all(folder.name.isdigit() for folder in folders)
    if len(folders) != num_classes or num_classes < 2 or len({folder.parent for folder in folders}) > 1 or numbered:
        return {}
    if class_names and not all(_WORDNET.fullmatch(folder.name) for folder in folders):
        return {}
    return {folder: index for index, folder in enumerate(folders)}


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        document = json.loads(text)
        if isinstance(document, dict):
            by_index = {int(key): value for key, value in document.items()}
            document = [by_index[index] for index in range(len(by_index))]
        if not isinstance(document, list):
            raise TypeError
        return tuple(str(entry[-1] if isinstance(entry, list) else entry) for entry in document)
    except (ValueError, TypeError, LookupError, RecursionError):
        raise DataError(
            "is no list of class names", path=path, remedy='Give a JSON list, or an object {"0": "tench", ...}'
        ) from None
