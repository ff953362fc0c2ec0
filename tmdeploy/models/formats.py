"""The checkpoint formats: one module each, found by what a file begins with, then by its suffix."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tmdeploy.card.card import ModelCard
from tmdeploy.errors import UsageError
from tmdeploy.extensions import Table
from tmdeploy.models.content import (
    SAFETENSORS_SUFFIXES,
    TORCH_SUFFIXES,
    check_is_file,
    is_pickle,
    is_safetensors,
    is_zip,
    read_head,
)
from tmdeploy.system.boundary import library_call

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Contents:
    """What a reader found.

    Attributes:
        held: A state_dict, or whatever holds one; see `state_dict.find_state_dict`.
        card: The card in tmdeploy's own files; None for all others.
    """

    held: object
    card: ModelCard | None = None


class FormatModule(Protocol):
    """What a format's module offers; `write` may be missing."""

    def read(self, path: Path, *, trust: bool) -> Contents:
        """Read a file. Raises CheckpointError if it is damaged, foreign, or wants to run code without `trust`."""
        ...

    def write(self, path: Path, state_dict: Mapping[str, Tensor], card: ModelCard) -> None:
        """Write a file that `read` reads."""
        ...


@dataclass(frozen=True)
class CheckpointFormat:
    """A checkpoint format.

    Attributes:
        name: In messages.
        suffixes: Lower case, with their dots.
        module: Where `read` and perhaps `write` are (`FormatModule`); imported when there is a file to read.
        begins: Whether a file of this format can begin with these bytes, its first 512.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    begins: Callable[[bytes], bool]


# One row a format. The first is for suffixes that none claims.
_OURS: tuple[CheckpointFormat, ...] = (
    CheckpointFormat(
        "torch",
        TORCH_SUFFIXES,
        "tmdeploy.models.torch_file",
        lambda head: is_zip(head) or is_pickle(head),
    ),
    CheckpointFormat("safetensors", SAFETENSORS_SUFFIXES, "tmdeploy.models.safetensors_file", is_safetensors),
)
FORMATS = Table("tmdeploy.checkpoint_formats", CheckpointFormat, lambda: _OURS)


def read_file(path: Path, *, trust: bool) -> Contents:
    """Read a checkpoint file of any registered format.

    Raises:
        CheckpointError: It cannot be read, is not a checkpoint, or wants to run code without `trust`.
    """
    check_is_file(path)
    head = read_head(path)
    named = format_of(path)
    by_content = named if named is not None and named.begins(head) else FORMATS.find(lambda one: one.begins(head))
    chosen = by_content or named or _OURS[0]
    with library_call(path, f"cannot be read as a checkpoint of format {chosen.name}"):
        contents: Contents = importlib.import_module(chosen.module).read(path, trust=trust)
    return contents


def write_file(path: Path, state_dict: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a checkpoint in the format of the suffix.

    Raises:
        UsageError: No format has this suffix, or its format is only read.
    """
    known = format_of(path)
    if known is None:
        raise UsageError(f"{path}: unknown checkpoint suffix '{path.suffix}'", remedy="Use .pt or .safetensors")
    module: Any = importlib.import_module(known.module)
    if not hasattr(module, "write"):
        raise UsageError(f"{path}: checkpoints of format {known.name} are only read", remedy="Use .pt or .safetensors")
    module.write(path, state_dict, card)


def format_of(path: Path) -> CheckpointFormat | None:
    """The format whose suffix a file has."""
    return FORMATS.find(lambda one: path.suffix.lower() in one.suffixes)
