"""What `tmdeploy infer` prints and writes."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from tmdeploy.inference import Predictions
from tmdeploy.report.table import plain_table

if TYPE_CHECKING:
    from rich.table import Table


def predictions_document(predictions: Predictions, model: dict[str, str]) -> dict[str, Any]:
    """JSON, schema `tmdeploy.infer/1`."""
    return {
        "schema": "tmdeploy.infer/1",
        "model": model,
        "images": [
            {
                "path": str(image.path),
                "top": [
                    {"rank": g.rank, "index": g.index, "name": g.name, "probability": g.probability}
                    for g in image.guesses
                ],
            }
            for image in predictions.images
        ],
        "skipped": [{"path": str(path), "reason": reason} for path, reason in predictions.skipped],
    }


def predictions_csv(predictions: Predictions) -> str:
    """One row an image and rank: path, rank, index, name, probability."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "rank", "index", "name", "probability"])
    for image in predictions.images:
        for guess in image.guesses:
            writer.writerow([image.path, guess.rank, guess.index, guess.name, f"{guess.probability:.6g}"])
    return buffer.getvalue()


def predictions_table(predictions: Predictions) -> Table:
    """Images down, their classes beside them."""
    table = plain_table()
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("index", justify="right")
    table.add_column("probability", justify="right")
    for image in predictions.images:
        table.add_row(
            image.path.name,
            "\n".join(guess.name for guess in image.guesses),
            "\n".join(str(guess.index) for guess in image.guesses),
            "\n".join(f"{guess.probability:.1%}" for guess in image.guesses),
            end_section=len(image.guesses) > 1,
        )
    return table
