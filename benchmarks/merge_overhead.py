"""What does merging gain on this machine, and what do the reduction steps cost?

    python benchmarks/merge_overhead.py [--method tome] [--batch 1,8] [--json docs/results/merge_overhead.json]

Exports a DeiT-S/16-shaped checkpoint, then times in interleaved rounds: the merged file, its unmerged twin, its
free-merge twin (each reduction a slice: the most that merging could gain), and the merged and unmerged PyTorch model.
It is `tmdeploy export` and `tmdeploy bench --free-merge`, with the checkpoint made here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from deit_s import make_checkpoint
from rich.console import Console

from tmdeploy.bench.run import bench
from tmdeploy.bench.timing import Protocol
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.report.tables.bench import print_bench


def main(
    method: Annotated[str, typer.Option(help="At its default schedule.")] = "tome",
    checkpoint: Annotated[Path | None, typer.Option(help="Default: a DeiT-S-shaped one with random weights.")] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    duration: Annotated[float, typer.Option(help="Measured seconds of each arm, at least.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report.")] = None,
) -> None:
    """Export, then time side by side."""
    with tempfile.TemporaryDirectory() as name:
        source = checkpoint or make_checkpoint(Path(name) / "deit_s.pth")
        model = Path(name) / f"deit_s_{method}.onnx"
        export_checkpoint(ExportRequest(checkpoint=source, output=model, method=method, verify=False))
        report = bench(
            [model, source],
            batch_sizes=tuple(map(int, batch.split(","))),
            protocol=Protocol(duration_s=duration, rounds=rounds),
            free_merge=True,
        )
    print_bench(report, Console())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(
            report.model_dump_json(by_alias=True, indent=1, exclude={"arms": {"__all__": {"rounds_ms"}}})
        )


if __name__ == "__main__":
    typer.run(main)
