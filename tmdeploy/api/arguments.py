"""Types that several verbs take, and what becomes of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from tmdeploy.errors import TmdeployWarning

if TYPE_CHECKING:
    from tmdeploy.backends import Runner
    from tmdeploy.backends.options import CheckpointOptions

FilePath = str | Path
Amounts = str | float | Sequence[float]


class Checkpoint(TypedDict, total=False):
    """How a checkpoint is read, where its file does not say; of other files it changes nothing.

    Attributes:
        arch: Architecture by name; None infers it from the weights.
        num_heads: Attention heads, if not width / 64.
        assume: What weights do not show, by key, or as KEY=VALUE (docs/checkpoints.md).
        image_size: Side of the input, pixels; None takes the checkpoint's.
        ema: Read the averaged weights.
        ignore_extra: Leave out weights beside the ViT's.
        trust_checkpoint: Allow unpickling, which runs whatever code the file holds.
    """

    arch: str | None
    num_heads: int | None
    assume: Mapping[str, object] | Sequence[str]
    image_size: int | None
    ema: bool
    ignore_extra: bool
    trust_checkpoint: bool


def checkpoint_options(given: Checkpoint, **more: Any) -> CheckpointOptions:
    """The same for the backends."""
    from tmdeploy.backends.options import CheckpointOptions

    assume = given.get("assume") or ()
    pairs = [f"{key}={value}" for key, value in assume.items()] if isinstance(assume, Mapping) else assume
    return CheckpointOptions(**{**given, "assume": tuple(pairs), **more})


def opened(path: FilePath, backend: str | None, threads: int | None, given: Checkpoint) -> Runner:
    """A model, and its notes as warnings."""
    from tmdeploy.backends import backend_for, open_runner

    model, options = Path(path), {}
    if backend_for(model, backend).reads_checkpoints:
        options = checkpoint_options(given).keywords()
    runner = open_runner(model, backend=backend, threads=threads, **options)
    warn_notes(runner)
    return runner


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One, several or none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str | Path) or not isinstance(value, Iterable) else tuple(value)


def warn(message: str) -> None:
    """Tell the user, and go on."""
    warnings.warn(message, TmdeployWarning, stacklevel=3)


def warn_notes(runner: Runner) -> None:
    """What was assumed to open a checkpoint, if it was one."""
    for note in runner.notes:
        warn(note)
