"""Classify images with any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tmdeploy.backends.base import Runner
from tmdeploy.images import ImageReader, nothing_readable
from tmdeploy.labels import name_of


@dataclass(frozen=True)
class Guess:
    """One class of an image's top-k."""

    rank: int
    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """An image and its most probable classes, best first."""

    path: Path
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class Predictions:
    """All images, and those that could not be read (path and reason)."""

    images: tuple[Prediction, ...]
    skipped: tuple[tuple[Path, str], ...]


def classify(
    runner: Runner,
    paths: Sequence[Path],
    *,
    top_k: int = 5,
    batch: int = 8,
    schedule: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """Classify images in batches.

    Args:
        runner: A loaded model.
        paths: Images; broken ones are skipped and reported.
        top_k: Classes an image, clipped to the model's.
        batch: Images at a time.
        schedule: Instead of the model's own.
        class_names: One a class.
        progress: Called with a short description.

    Raises:
        DataError: None of the images could be read.
    """
    reader = ImageReader(paths, runner.preprocessing, in_graph=runner.pixels_in)
    fixed_batch = runner.metadata is not None and not runner.metadata.dynamic_batch
    predictions: list[Prediction] = []
    for read in reader.batches(1 if fixed_batch else batch):
        logits = runner.infer(read.images, schedule).astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = shifted / shifted.sum(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1, kind="stable")[:, : min(top_k, logits.shape[1])]
        for row, path in enumerate(read.paths):
            guesses = tuple(
                Guess(rank + 1, int(index), name_of(int(index), class_names), float(shares[row, index]))
                for rank, index in enumerate(order[row])
            )
            predictions.append(Prediction(path, guesses))
        progress(f"classified {len(predictions)} of {len(paths)} images")
    if not predictions:
        raise nothing_readable(reader.skipped)
    return Predictions(tuple(predictions), tuple(reader.skipped))
