"""Classify images with any backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Runner
from tmdeploy.data.images import ImageReader, nothing_readable
from tmdeploy.data.labels import check_class_names, name_of
from tmdeploy.errors import ArtifactError
from tmdeploy.report.schemas.predictions import Guess, Prediction, Predictions, Skipped
from tmdeploy.system.progress import Progress, silent


def classify(
    runner: Runner,
    paths: Sequence[Path],
    *,
    top_k: int = 5,
    batch: int = 8,
    schedule: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    names_from: Path | None = None,
    progress: Progress = silent,
) -> Predictions:
    """Classify images in batches.

    Args:
        runner: A loaded model.
        paths: Images; broken ones are skipped and reported.
        top_k: Classes an image, clipped to the model's.
        batch: Images at a time.
        schedule: Instead of the model's own.
        class_names: One per class, or none: classes go by their index.
        names_from: The file that they are from, for the message; None: the model itself.
        progress: Called with a short description.

    Raises:
        DataError: None of the images could be read, or there are more or fewer names than classes.
        ArtifactError: The model has no classifier, or what it gives is no row of logits an image.
    """
    if runner.card is not None and runner.card.num_classes == 0:
        raise ArtifactError(
            "has no classifier: it gives features, and the largest of them is no class",
            path=runner.path,
            remedy="Export a checkpoint with its head, or get the features in Python: open_runner(path).infer(images)",
        )
    reader = ImageReader(paths, runner.preprocessing, in_graph=runner.pixels_in)
    fixed_batch = runner.metadata is not None and not runner.metadata.dynamic_batch
    predictions: list[Prediction] = []
    for read in reader.batches(1 if fixed_batch else batch):
        logits = np.asarray(runner.infer(read.images, schedule), dtype=np.float64)
        if logits.ndim != 2 or len(logits) != len(read.paths) or not logits.size:
            raise ArtifactError(
                f"gives {list(logits.shape)} for {len(read.paths)} images, not a row of logits each",
                path=runner.path,
                remedy="Give a classifier with one output [batch, classes]",
            )
        check_class_names(class_names, logits.shape[1], path=names_from or runner.path)
        rows = zip(read.paths, logits, strict=True)
        predictions += [_prediction(path, row, top_k, class_names) for path, row in rows]
        progress(f"classified {len(predictions)} of {len(paths)} images")
    if not predictions:
        raise nothing_readable(reader.skipped)
    return Predictions(
        model={"path": str(runner.path), **runner.facts.described()},
        images=tuple(predictions),
        skipped=tuple(Skipped(path=path, reason=reason) for path, reason in reader.skipped),
    )


def _prediction(path: Path, logits: NDArray[np.float64], top_k: int, class_names: Sequence[str]) -> Prediction:
    if np.isnan(logits).any() or not np.isfinite(logits.max()):
        return Prediction(path=path, top=(), problem="its logits are NaN or infinite")
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    order = np.argsort(-logits, kind="stable")[:top_k]
    return Prediction(
        path=path,
        top=tuple(
            Guess(
                rank=rank + 1, index=int(index), name=name_of(int(index), class_names), probability=float(shares[index])
            )
            for rank, index in enumerate(order)
        ),
    )
