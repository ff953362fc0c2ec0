"""One arm of a benchmark before it is timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmdeploy.backends import Runner
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.card.schedule import schedule_text

_SPELT_OUT = 3  # amounts that a table has room for
Schedule = tuple[int, ...] | None


@dataclass(frozen=True)
class EngineMode:
    """How an engine is called.

    Attributes:
        cuda_graph: Its work is launched as one CUDA graph, not kernel by kernel.
        transfers: Images and logits are copied; else they stay on the device, as with trtexec's --noDataTransfers.
    """

    cuda_graph: bool
    transfers: bool

    def __str__(self) -> str:
        """`graph`, `no graph, no transfers`."""
        words = "graph" if self.cuda_graph else "no graph"
        return words if self.transfers else f"{words}, no transfers"


def engine_modes(cuda_graph: bool | None = None, transfers: bool | None = None) -> tuple[EngineMode, ...]:
    """The modes asked for; None is both."""
    both = (True, False)
    return tuple(
        EngineMode(graph, copies)
        for copies in (both if transfers is None else (transfers,))
        for graph in (both if cuda_graph is None else (cuda_graph,))
    )


@dataclass(frozen=True)
class Arm:
    """One arm before it is timed.

    Attributes:
        name: In tables.
        kind: `model`, `unmerged` or `free-merge`.
        runner: Loaded.
        path: The file it is, or is a twin of.
        schedule: Amounts to run with; None is the default.
        macs: MACs of one image; None for a foreign file.
        baseline: Name of the arm it is compared with first; None for a baseline.
        amounts: What it runs with, as `r=13`; None if it reduces nothing.
        checkpoint: How it was opened; None for an exported file.
        backend: As asked for; None for the suffix's default.
        mode: How an engine is called; None for anything else.
    """

    name: str
    kind: str
    runner: Runner
    path: Path
    schedule: Schedule
    macs: int | None
    baseline: str | None
    amounts: str | None = None
    checkpoint: CheckpointOptions | None = None
    backend: str | None = None
    mode: EngineMode | None = None

    @property
    def precision(self) -> str:
        """fp32, tf32, fp16 or bf16."""
        return self.runner.facts.precision or "fp32"


def labelled(path: Path, backend: str | None) -> str:
    """A model's name in tables; with its backend, where there are several."""
    return path.name if backend is None else f"{path.name}, {backend}"


def scheduled(label: str, schedule: Schedule) -> str:
    """A label with its schedule, if it is not the default."""
    return label if schedule is None else f"{label}, {schedule_text(schedule)}"


def amounts_text(kind: str | None, amounts: Sequence[int]) -> str | None:
    """`r=13`, `keep=138,97,68`, `r=26..0` for a long one; None where nothing is reduced."""
    if kind is None or not amounts:
        return None
    if len(set(amounts)) == 1:
        return f"{kind}={amounts[0]}"
    return (
        f"{kind}={','.join(map(str, amounts))}" if len(amounts) <= _SPELT_OUT else f"{kind}={amounts[0]}..{amounts[-1]}"
    )
