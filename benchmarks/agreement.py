"""Does one runtime-r file of every method agree with PyTorch, at every schedule and batch size?

    python benchmarks/agreement.py --data photos/ [--checkpoint deit_small.pth] [--json agreement.json]

Exports each method once, then runs `tmdeploy validate` on the same file at all schedules and batch sizes. Exit code 1
if any check of any method fails.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from deit_s import make_checkpoint
from rich.console import Console
from rich.table import Table

from tmdeploy.backends.pairing import open_pair, sample_source
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.report.schemas.validation import ValidationReport
from tmdeploy.validate import validate

# method: runtime values, each for every step: the smallest, the usual, the largest that is legal (197 tokens)
SCHEDULES = {
    "tome": (0, 1, 8, 13, 16, 98),
    "evit": (196, 137, 96, 67, 14, 1),
    "topk": (196, 137, 96, 67, 14, 1),
    "mstm": (196, 137, 96, 67, 14, 1),
}


def main(
    data: Annotated[list[Path], typer.Option(help="Photos: files, folders, globs.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Default: a DeiT-S-shaped one with random weights.")] = None,
    methods: Annotated[str, typer.Option(help="Which to export.")] = ",".join(SCHEDULES),
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,3,8",
    limit: Annotated[int, typer.Option(help="At most this many images.")] = 24,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all reports.")] = None,
) -> None:
    """Export every method once and compare it with PyTorch."""
    console, documents, passed = Console(), {}, True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = checkpoint or make_checkpoint(folder / "deit_s.pth")
        for method in methods.split(","):
            start = perf_counter()
            model = folder / f"{method}.onnx"
            export_checkpoint(ExportRequest(checkpoint=source, output=model, method=method, verify=False))
            exported = perf_counter() - start
            reports = _compare(source, model, method, data, tuple(map(int, batch.split(","))), limit)
            documents[method] = [report.model_dump(mode="json", by_alias=True) for report in reports]
            passed &= all(report.passed for report in reports)
            console.print(_table(method, reports))
            console.print(f"one file, exported in {exported:.1f} s\n")
    if json_file is not None:
        json_file.write_text(json.dumps(documents, indent=1) + "\n")
    sys.exit(0 if passed else 1)


def _compare(
    source: Path, model: Path, method: str, data: list[Path], batches: tuple[int, ...], limit: int
) -> list[ValidationReport]:
    reports = []
    with open_pair(source, model) as (reference, candidate):
        assert candidate.metadata is not None
        steps = len(candidate.metadata.steps)
        for value in SCHEDULES[method]:
            samples = sample_source(reference, candidate, data, random=limit, limit=limit)
            reports.append(validate(reference, candidate, samples, batch_sizes=batches, schedules=[(value,) * steps]))
    return reports


def _table(method: str, reports: list[ValidationReport]) -> Table:
    table = Table(title=f"{method}: all batch sizes; largest logits error where plans agree", title_justify="left")
    names = ("every step", "compared", "plans agree", "near-ties", "divergent", "error", "checks")
    for column in names:
        table.add_column(column, justify="right")
    for report in reports:
        assert report.schedules[0] is not None
        error = report.model.logits_error_agreeing_max
        counts = (report.schedules[0][0], report.compared, report.agreeing, report.near_ties, report.divergent)
        verdict = "passed" if report.passed else "FAILED"
        table.add_row(*map(str, counts), "-" if error is None else f"{error:.1e}", verdict)
    return table


if __name__ == "__main__":
    typer.run(main)
