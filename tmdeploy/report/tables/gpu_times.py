"""Tables of engines: times on the GPU, and memory of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING

from tmdeploy.report.schemas.bench import ArmRow, GpuTimes, ModelRow, Spread
from tmdeploy.report.tables.bench_labels import Labels, kind_text, packed
from tmdeploy.report.tables.table import plain_table

if TYPE_CHECKING:
    from rich.table import Table

_NAME = 16  # widest name beside the numbers

# In the order of a call; a whole call of its own is timed one at a time, the parts with the next one queued.
_PARTS = (
    ("h2d", "images in"),
    ("compute", "compute"),
    ("d2h", "logits out"),
    ("latency", "sum"),
    ("enqueue", "enqueue"),
)


def gpu_table(batch: int, rows: Sequence[ArmRow], labels: Labels) -> Table:
    """The parts of a call, as trtexec reports them, and throughput.

    Args:
        batch: Images per call.
        rows: Arms that ran on a GPU: engines and checkpoints.
        labels: Labels of the arms.
    """
    table = plain_table(f"batch {batch}: on the GPU, milliseconds a batch")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    table.add_column("part", no_wrap=True)
    percentiles = list(rows[0].percentiles_ms)
    for column in (*(f"p{value}" for value in percentiles), "mean", "max", "cv"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        gpu = row.gpu
        name = packed([*labels.words(row, _NAME), *kind_text(row).split()], _NAME)
        if gpu is None:
            if row.compute is not None:
                table.add_row(str(row.number), name, "compute", *_cells(row.compute, percentiles))
            continue
        parts = [(words, gpu.queued[name]) for name, words in _PARTS if name in gpu.queued and _says(gpu, name)]
        parts.append(("whole call", gpu.single["host"]))
        numbers, names = chain([str(row.number)], repeat("")), chain(name.splitlines(), repeat(""))
        for words, spread in parts:
            table.add_row(next(numbers), next(names), words, *_cells(spread, percentiles))
        table.add_row("", next(names), "img/s", f"{gpu.single_images_per_s:.0f}")
        table.add_row("", next(names), "img/s queued", f"{gpu.queued_images_per_s:.0f}")
    return table


def memory_table(rows: Sequence[ModelRow], labels: Labels) -> Table:
    """GPU memory of engines, MiB: as TensorRT states it, and as measured."""
    table = plain_table("GPU memory of engines, MiB, each in a fresh process")
    for column in ("engine", "weights", "streamable", "a context", "in and out", "loaded", "running"):
        table.add_column(column, justify="left" if column == "engine" else "right", overflow="fold")
    for row in rows:
        gpu = row.gpu
        if gpu is not None:
            sizes = (gpu.weights, gpu.streamable, gpu.activations, gpu.buffers, gpu.loaded, gpu.running)
            table.add_row(
                packed(labels.model(row, _NAME), _NAME),
                *("-" if size is None else f"{size / 2**20:.1f}" for size in sizes),
            )
    return table


def _says(gpu: GpuTimes, name: str) -> bool:
    """Without transfers the sum is compute alone."""
    return gpu.transfers or name != "latency"


def _cells(spread: Spread, percentiles: Sequence[str]) -> list[str]:
    times = [spread.percentiles_ms[value] for value in percentiles] + [spread.mean_ms, spread.max_ms]
    return [*(f"{time:.3f}" for time in times), f"{spread.cv:.1%}"]
