"""Splitting images: some to calibrate on, others to compare on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tmdeploy.data.images import find_images
from tmdeploy.errors import DataError


@dataclass(frozen=True)
class Split:
    """Two disjoint sets of images.

    Attributes:
        calibration: Images to calibrate on.
        held_out: Images to compare on.
        known: All named images: labels by folder depend on the folder's neighbours.
    """

    calibration: tuple[Path, ...]
    held_out: tuple[Path, ...]
    known: tuple[Path, ...]


def split_images(
    data: Sequence[str | Path], eval_data: Sequence[str | Path], *, images: int, eval_images: int, seed: int
) -> Split:
    """Draw calibration images, and take the rest, or `eval_data`, to compare on.

    Args:
        data: Files, folders, globs.
        eval_data: The same; empty: the rest of `data`, which then is at least half of it.
        images: Calibration images.
        eval_images: At most this many to compare on.
        seed: Seed of the random choice.

    Raises:
        DataError: A source does not exist or has no images; a single image for both; or nothing but calibration images
            to compare on.
    """
    found = list(dict.fromkeys(find_images(data)))
    order = [found[place] for place in np.random.default_rng(seed).permutation(len(found))]
    if not eval_data:
        if len(found) < 2:
            raise DataError(
                "a single image cannot be both calibrated and compared on",
                path=found[0],
                remedy="Give more with --data, or others to compare on with --eval-data",
            )
        images = min(images, len(found) // 2)
        return Split(tuple(order[:images]), tuple(order[images:][:eval_images]), tuple(found))
    used = {path.resolve() for path in order[:images]}
    others = [path for path in dict.fromkeys(find_images(eval_data)) if path.resolve() not in used]
    if not others:
        raise DataError("--eval-data has no images but those calibrated on", remedy="Name other images")
    chosen = np.random.default_rng(seed).permutation(len(others))[:eval_images]
    return Split(tuple(order[:images]), tuple(others[place] for place in chosen), (*found, *others))
