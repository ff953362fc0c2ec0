"""What a graph pass is: a change of a model that has a name, and says what it did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

_log = logging.getLogger("tmdeploy.graph")


@dataclass(frozen=True)
class Change:
    """What a pass did.

    Attributes:
        name: Name of the pass.
        summary: What became of what it found, in one line.
        counts: What it found, by kind: {"tensors": 5, "casts": 2}. All zero: it changed nothing.
        notes: Sentences that whoever uses the result has to read.
    """

    name: str
    summary: str
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = ", ".join(f"{kind}: {count}" for kind, count in self.counts.items() if count)
        return f"{self.name}: {self.summary} ({found})" if found else f"{self.name}: nothing to do"


M = TypeVar("M")
C = TypeVar("C", bound=Change)


@runtime_checkable
class Pass(Protocol[M]):
    """A change of a model, in place or into another one.

    `M` is one of the two forms a model has here. `onnx_ir.Model` knows who makes and who reads a value: passes of an
    export, a third party's among them, are written for it. `onnx.ModelProto` is the file itself: passes for runtimes.
    """

    @property
    def name(self) -> str:
        """What it is called in messages; words joined by hyphens."""

    def __call__(self, model: M) -> tuple[M, Change]:
        """The changed model, which may be the given one, and what changed."""


def run_pass(model: M, one: Callable[[M], tuple[M, C]]) -> tuple[M, C]:
    """Run a pass, and log what it changed (`--debug` shows it)."""
    model, change = one(model)
    _log.debug("%s", change)
    return model, change


def run_passes(model: M, passes: Iterable[Pass[M]]) -> tuple[M, tuple[Change, ...]]:
    """Run passes one after another, each on what the one before made."""
    changes = []
    for one in passes:
        model, change = run_pass(model, one)
        changes.append(change)
    return model, tuple(changes)
