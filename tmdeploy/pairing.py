"""Opening models so that they can be compared: same method, same schedule, same pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tmdeploy.backends.base import Runner, backend_for, open_runner
from tmdeploy.errors import UsageError
from tmdeploy.images import ImageReader, find_images, label_of, random_images
from tmdeploy.metadata import ArtifactMetadata
from tmdeploy.recipe import Recipe
from tmdeploy.validate.run import Samples


def recipe_of(metadata: ArtifactMetadata) -> Recipe:
    """The recipe an exported file was made with."""
    return Recipe(
        method=metadata.method,
        options=dict(metadata.method_options),
        layers=metadata.layers,
        amounts=metadata.schedule,
    )


def open_pair(
    reference: Path,
    candidate: Path,
    *,
    threads: int | None = None,
    trust_checkpoint: bool = False,
    arch: str | None = None,
    num_heads: int | None = None,
) -> tuple[Runner, Runner]:
    """Open two models for comparison.

    A checkpoint takes method, schedule and image size of the exported file beside it: plain DeiT weights carry none.

    Args:
        reference: Any model.
        candidate: Any model.
        threads: Of both backends.
        trust_checkpoint: Allow unpickling.
        arch: Of a checkpoint.
        num_heads: Of a checkpoint.

    Raises:
        UsageError: The two take different images.
    """
    opened: dict[Path, Runner] = {}
    exported = [path for path in (reference, candidate) if backend_for(path).name != "pytorch"]
    for path in exported:
        opened[path] = open_runner(path, threads=threads)
    metadata = next((runner.metadata for runner in opened.values() if runner.metadata is not None), None)
    for path in (reference, candidate):
        if path in opened:
            continue
        options: dict[str, object] = {"trust_checkpoint": trust_checkpoint, "arch": arch, "num_heads": num_heads}
        if metadata is not None:
            height, width = metadata.preprocessing.image_size
            options["recipe"] = recipe_of(metadata)
            options["image_size"] = height if height == width else None
            options["pixels_in"] = metadata.preprocessing_in_graph
        opened[path] = open_runner(path, threads=threads, **options)
    first, second = opened[reference], opened[candidate]
    if first.preprocessing.image_size != second.preprocessing.image_size:
        sizes = [" x ".join(map(str, runner.preprocessing.image_size)) for runner in (first, second)]
        raise UsageError(f"{first.name} takes images of {sizes[0]} pixels, {second.name} of {sizes[1]}")
    return first, second


def load_samples(runner: Runner, data: Sequence[str | Path], *, random: int, limit: int | None = None) -> Samples:
    """Real images where there are any, else seeded random ones.

    Args:
        runner: Whose input they become.
        data: Files, folders, globs.
        random: How many random images without data.
        limit: At most this many real ones.

    Raises:
        DataError: None could be read.
    """
    spec, in_graph = runner.preprocessing, runner.pixels_in
    if not data:
        images = random_images(random, spec, in_graph=in_graph)
        names = tuple(f"random {number}" for number in range(random))
        return Samples(images, names, f"{random} seeded random images")
    reader = ImageReader(find_images(data)[:limit], spec, in_graph=in_graph)
    batch = reader.all()
    labels = [label_of(path, runner.class_names) for path in batch.paths]
    return Samples(
        batch.images,
        tuple(path.name for path in batch.paths),
        f"{len(batch.paths)} images from {', '.join(map(str, data))}",
        labels=np.array([-1 if label is None else label for label in labels], dtype=np.int64),
        skipped=tuple((str(path), reason) for path, reason in reader.skipped),
    )
