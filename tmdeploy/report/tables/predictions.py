"""What `tmdeploy infer` prints and writes."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tmdeploy.data.images import told_apart
from tmdeploy.report.schemas.predictions import Predictions
from tmdeploy.report.tables.table import plain_table
from tmdeploy.report.text import one_line, styled

if TYPE_CHECKING:
    from rich.table import Table


def predictions_csv(predictions: Predictions) -> str:
    """One row per image and rank: path, rank, index, name, probability; only the path if there are no classes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "rank", "index", "name", "probability"])
    for image in predictions.images:
        if image.problem:
            writer.writerow([image.path, "", "", "", ""])
        for guess in image.top:
            writer.writerow([image.path, guess.rank, guess.index, guess.name, f"{guess.probability:.6g}"])
    return buffer.getvalue()


def predictions_table(predictions: Predictions) -> Table:
    """One row per class, with the image in the first: a long name may wrap without losing its probability."""
    table = plain_table()
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("index", justify="right", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    names = told_apart([image.path for image in predictions.images])
    for shown, image in zip(map(one_line, names), predictions.images, strict=True):
        if image.problem:
            table.add_row(shown, styled((f"none: {image.problem}", "red")), "", "", end_section=True)
        for guess in image.top:
            table.add_row(
                shown if guess.rank == 1 else "",
                one_line(guess.name),
                str(guess.index),
                f"{guess.probability:.1%}",
                end_section=1 < guess.rank == len(image.top),
            )
    return table
