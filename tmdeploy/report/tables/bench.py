"""What `tmdeploy bench` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tmdeploy.report.schemas.bench import ArmRow, BenchReport, RatioRow
from tmdeploy.report.tables.bench_labels import Labels, kind_text, packed
from tmdeploy.report.tables.gpu_times import gpu_table, memory_table
from tmdeploy.report.tables.table import plain_table
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_NAME = 32  # widest file name
_BESIDE_MEMORY = 28
_NARROWEST = 12
_GAP = 2  # between columns, and for the edges


def print_bench(report: BenchReport, console: Console) -> None:
    """Print one table per batch size, one of GPU times, load times and memory, and finally warnings."""
    machine, labels = report.machine, Labels(report)
    backend = f"; {labels.backend}" if labels.backend else ""
    console.print(f"{machine.cpu}, {machine.cores} cores{backend}; {report.data}; {report.rounds} interleaved rounds")
    console.print(styled((report.boundary, "dim"), "\n"))
    numbers: dict[str, int] = {row.name: row.number for row in report.arms}
    for batch in dict.fromkeys(row.batch for row in report.arms):
        rows = [row for row in report.arms if row.batch == batch]
        comparable = [row for row in rows if row.boundary is None]
        if comparable:
            _print_arms(batch, comparable, labels, console)
        measured = [row for row in rows if row.gpu is not None or row.compute is not None]
        if measured:
            console.print(gpu_table(batch, measured, labels))
        for row in rows:
            for sentence in (_verdict(row), _against_pytorch(row, numbers)):
                if sentence:
                    console.print(f"{row.number}: {sentence}")
        console.print()
    if any(row.load_ms is not None for row in report.models):
        console.print(_models(report, labels))
    if any(row.gpu is not None for row in report.models):
        console.print(memory_table(report.models, labels))
    for warning in report.warnings:
        console.print(styled(("note", "yellow"), f" {warning}"))


def _print_arms(batch: int, rows: list[ArmRow], labels: Labels, console: Console) -> None:
    """Print a table as wide as the console, or wider if needed: numbers are never cut."""
    percentiles = list(rows[0].percentiles_ms)
    columns = {
        "kind": [kind_text(row) for row in rows],
        **{f"p{value}": [_number(row.percentiles_ms[value]) for row in rows] for value in percentiles},
        "img/s": [_number(row.images_per_s) for row in rows],
        "GMACs": ["-" if row.gmacs is None else f"{row.gmacs:.3g}" for row in rows],
        "x unmerged": [_median(row.ratio) for row in rows],
    }
    if any(row.pytorch is not None for row in rows):
        columns["x PyTorch"] = [_median(row.pytorch) for row in rows]
    numbers = [str(row.number) for row in rows]
    for heads in (list(columns), [head.replace(" ", "\n") for head in columns]):
        widths = [max(map(len, numbers))]
        widths += [
            max(map(len, (*head.split("\n"), *cells))) for head, cells in zip(heads, columns.values(), strict=True)
        ]
        taken = sum(width + _GAP for width in widths) + _GAP
        room = max(_NARROWEST, console.width - taken)
        names = [packed(labels.words(row, min(room, _NAME)), room) for row in rows]
        if not any("\n" in name for name in names):
            break
    table = plain_table(f"batch {batch}: milliseconds a batch")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="left" if head == "kind" else "right", no_wrap=True)
    for number, name, *cells in zip(numbers, names, *columns.values(), strict=True):
        table.add_row(number, name, *cells)
    console.width = max(console.width, taken + room)
    console.print(table, crop=False)


def _number(value: float) -> str:
    """Format a number with three or four digits: `1.41`, `33.30`, `396.1`, `1234`."""
    return f"{value:.{2 if value < 100 else 1 if value < 1000 else 0}f}"


def _median(ratio: RatioRow | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f}"


def _verdict(row: ArmRow) -> str:
    """Speed-up against the unmerged twin, which differs in nothing but the reduction."""
    if row.ratio is None:
        return ""
    if not row.ratio.decided:
        return "no difference to its unmerged twin that every round shows"
    text = _factor(row.ratio, "unmerged")
    if row.realised is not None and row.mac_ratio is not None:
        arrived = f"{row.realised:.0%}" if row.realised > 0 else "none"
        text += f"; {arrived} of the {1 - row.mac_ratio:.0%} MAC saving arrived as time"
    return text


def _against_pytorch(row: ArmRow, numbers: dict[str, int]) -> str:
    if row.pytorch is None:
        return ""
    other = f"{numbers[row.pytorch.baseline]} in PyTorch"
    if not row.pytorch.decided:
        return f"no difference to {other} that every round shows"
    return _factor(row.pytorch, other)


def _factor(ratio: RatioRow, other: str) -> str:
    word, factor = ("faster", 1 / ratio.median) if ratio.median < 1 else ("slower", ratio.median)
    return f"{factor:.2f}x {word} than {other} ({ratio.low:.2f} to {ratio.high:.2f} of its time over the rounds)"


def _models(report: BenchReport, labels: Labels) -> Table:
    table = plain_table("Load time and memory, each in a fresh process")
    table.add_column("model")
    for column in ("file", "load", "peak memory", "of it the model"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.models:
        table.add_row(
            packed(labels.model(row, _BESIDE_MEMORY), _BESIDE_MEMORY),
            f"{row.bytes / 1e6:.1f} MB",
            "-" if row.load_ms is None else f"{row.load_ms:.0f} ms",
            "-" if row.peak_mib is None else f"{row.peak_mib:.0f} MiB",
            "-" if row.model_mib is None else f"{row.model_mib:.0f} MiB",
        )
    return table
