"""What `tmdeploy bench` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tmdeploy.bench.report import ArmRow, BenchReport, RatioRow
from tmdeploy.report.gpu_times import gpu_table, memory_table
from tmdeploy.report.table import plain_table
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_NAME = 22


def print_bench(report: BenchReport, console: Console) -> None:
    """One table a batch size, another of what ran on a GPU, then load time and memory, then what to doubt."""
    machine = report.machine
    console.print(f"{machine.cpu}, {machine.cores} cores; {report.data}; {report.rounds} interleaved rounds")
    console.print(styled((report.boundary, "dim"), "\n"))
    for batch in dict.fromkeys(row.batch for row in report.arms):
        rows = [row for row in report.arms if row.batch == batch]
        comparable = [row for row in rows if row.boundary is None]
        if comparable:
            console.print(_arms(batch, comparable))
        measured = [row for row in rows if row.gpu is not None or row.compute is not None]
        if measured:
            console.print(gpu_table(batch, measured))
        for row in rows:
            for sentence in (_verdict(row), _against_pytorch(row)):
                if sentence:
                    console.print(sentence)
        console.print()
    console.print(_models(report))
    if any(row.gpu is not None for row in report.models):
        console.print(memory_table(report.models))
    for warning in report.warnings:
        console.print(styled(("note", "yellow"), f" {warning}"))


def _arms(batch: int, rows: list[ArmRow]) -> Table:
    table = plain_table(f"batch {batch}: milliseconds a batch")
    table.add_column("model", overflow="fold")
    pytorch = any(row.pytorch is not None for row in rows)
    # beside an engine there is no room for it, and the suffix says it
    backends = len({row.backend["backend"] for row in rows}) > 1 and not pytorch
    if backends:
        table.add_column("backend")
    percentiles = list(rows[0].percentiles_ms)
    times = (f"p{value}" for value in percentiles)
    for column in (*times, "img/s", "GMACs", "x unmerged", *(["x PyTorch"] if pytorch else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            _broken(row.name),
            *([row.backend["backend"]] if backends else []),
            *(f"{row.percentiles_ms[value]:.2f}" for value in percentiles),
            f"{row.images_per_s:.1f}",
            "-" if row.gmacs is None else f"{row.gmacs:.3g}",
            _median(row.ratio),
            *([_median(row.pytorch)] if pytorch else []),
        )
    return table


def _median(ratio: RatioRow | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f}"


def _broken(name: str) -> str:
    """A long name over two lines, at its comma: the numbers need the width."""
    return name.replace(", ", ",\n  ") if len(name) > _NAME else name


def _verdict(row: ArmRow) -> str:
    """Speed-up against the unmerged twin, which differs in nothing but the reduction."""
    if row.ratio is None:
        return ""
    if not row.ratio.decided:
        return f"{row.name}: no difference to its unmerged twin that every round shows"
    text = f"{row.name}: {_factor(row.ratio, 'unmerged')}"
    if row.realised is not None and row.mac_ratio is not None:
        arrived = f"{row.realised:.0%}" if row.realised > 0 else "none"
        text += f"; {arrived} of the {1 - row.mac_ratio:.0%} MAC saving arrived as time"
    return text


def _against_pytorch(row: ArmRow) -> str:
    if row.pytorch is None:
        return ""
    if not row.pytorch.decided:
        return f"{row.name}: no difference to {row.pytorch.baseline} that every round shows"
    return f"{row.name}: {_factor(row.pytorch, f'{row.pytorch.baseline} in PyTorch')}"


def _factor(ratio: RatioRow, other: str) -> str:
    word, factor = ("faster", 1 / ratio.median) if ratio.median < 1 else ("slower", ratio.median)
    return f"{factor:.2f}x {word} than {other} ({ratio.low:.2f} to {ratio.high:.2f} of its time over the rounds)"


def _models(report: BenchReport) -> Table:
    table = plain_table("Load time and memory, each in a fresh process")
    for column in ("model", "file", "load", "peak memory", "of it the model"):
        table.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for row in report.models:
        table.add_row(
            row.name,
            f"{row.bytes / 1e6:.1f} MB",
            "-" if row.load_ms is None else f"{row.load_ms:.0f} ms",
            "-" if row.peak_mib is None else f"{row.peak_mib:.0f} MiB",
            "-" if row.model_mib is None else f"{row.model_mib:.0f} MiB",
        )
    return table
