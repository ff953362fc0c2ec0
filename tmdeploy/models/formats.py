"""The checkpoint formats: one module each, found by what a file begins with, then by its suffix."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from tmdeploy.errors import UsageError
from tmdeploy.models.content import (
    SAFETENSORS_SUFFIXES,
    TORCH_SUFFIXES,
    check_is_file,
    is_pickle,
    is_safetensors,
    is_zip,
    read_head,
)
from tmdeploy.models.document import Description


@dataclass(frozen=True)
class Contents:
    """What a reader found.

    Attributes:
        held: A state_dict, or whatever holds one; see `state_dict.find_state_dict`.
        description: Of tmdeploy's own files; None for all others.
    """

    held: object
    description: Description | None = None


class FormatModule(Protocol):
    """What a format's module offers."""

    def read(self, path: Path, *, trust: bool) -> Contents:
        """Read a file. Raises CheckpointError if it is damaged, foreign, or wants to run code without `trust`."""
        ...

    def write(self, path: Path, state_dict: Mapping[str, Tensor], description: Description) -> None:
        """Write a file that `read` reads."""
        ...


@dataclass(frozen=True)
class CheckpointFormat:
    """A registered format."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    begins: Callable[[bytes], bool]


# One row a format; a newcomer adds a file and a row. The first is for suffixes that none claims.
FORMATS: tuple[CheckpointFormat, ...] = (
    CheckpointFormat(
        "torch",
        TORCH_SUFFIXES,
        "tmdeploy.models.torch_file",
        lambda head: is_zip(head) or is_pickle(head),
    ),
    CheckpointFormat("safetensors", SAFETENSORS_SUFFIXES, "tmdeploy.models.safetensors_file", is_safetensors),
)


def read_file(path: Path, *, trust: bool) -> Contents:
    """Read a checkpoint file of any registered format.

    Raises:
        CheckpointError: It cannot be read, is not a checkpoint, or wants to run code without `trust`.
    """
    check_is_file(path)
    head = read_head(path)
    by_content = next((known for known in FORMATS if known.begins(head)), None)
    return _module(by_content or _by_suffix(path) or FORMATS[0]).read(path, trust=trust)


def write_file(path: Path, state_dict: Mapping[str, Tensor], description: Description) -> None:
    """Write a checkpoint in the format of the suffix.

    Raises:
        UsageError: No format has this suffix.
    """
    known = _by_suffix(path)
    if known is None:
        raise UsageError(f"{path}: unknown checkpoint suffix '{path.suffix}'", remedy="Use .pt or .safetensors")
    _module(known).write(path, state_dict, description)


def _by_suffix(path: Path) -> CheckpointFormat | None:
    return next((known for known in FORMATS if path.suffix.lower() in known.suffixes), None)


def _module(known: CheckpointFormat) -> FormatModule:
    return cast("FormatModule", importlib.import_module(known.module))
