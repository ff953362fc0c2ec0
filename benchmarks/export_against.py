"""What does `--against` add to an export?

    python benchmarks/export_against.py [--rounds 5] [--json docs/results/export_against.json]

Exports a DeiT-S/16-shaped checkpoint with and without `--against timm:deit_small_patch16_224`, in interleaved rounds in
one process after one export that warms up. Processor time is beside wall time: on a shared machine it is steadier.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated

import torch
import typer
from deit_s import make_checkpoint

from tmdeploy.export import ExportRequest, export_checkpoint

ARMS = ("without", "with")


def main(
    against: Annotated[str, typer.Option(help="The owner's model.")] = "timm:deit_small_patch16_224",
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the times.")] = None,
) -> None:
    """Time both, alternately."""
    wall: dict[str, list[float]] = {arm: [] for arm in ARMS}
    processor: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as name:
        source, output = make_checkpoint(Path(name) / "deit_s.pth"), Path(name) / "deit_s.onnx"
        for number in range(rounds + 1):
            for arm in ARMS if number % 2 else reversed(ARMS):
                request = ExportRequest(
                    checkpoint=source, output=output, method="tome", r=13, against=against if arm == "with" else None
                )
                start = perf_counter(), process_time()
                proof = export_checkpoint(request).metadata.card.proof
                assert (proof is not None) == (arm == "with")
                took = perf_counter() - start[0], process_time() - start[1]
                print(f"round {number}, {arm}: {took[0]:.1f} s, processor {took[1]:.1f} s", flush=True)
                if number:  # the first imports what the others need
                    wall[arm].append(took[0])
                    processor[arm].append(took[1])
    ratios = {"wall": _ratios(wall), "processor": _ratios(processor)}
    for kind, found in ratios.items():
        print(f"{kind}: with / without {statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})")
    if json_file is not None:
        document = {
            "command": f"benchmarks/export_against.py --rounds {rounds} --against {against}",
            "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
            "torch": torch.__version__,
            "wall_s": wall,
            "processor_s": processor,
            "ratio_of_round": ratios,
        }
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(document, indent=1) + "\n")


def _ratios(times: dict[str, list[float]]) -> list[float]:
    return [long / short for long, short in zip(times["with"], times["without"], strict=True)]


if __name__ == "__main__":
    typer.run(main)
