"""Opening models so that they can be compared: same method, same schedule, same pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tmdeploy.backends.base import Runner, backend_for, open_runner
from tmdeploy.errors import UsageError
from tmdeploy.images import ImageReader, find_images, label_of, random_images
from tmdeploy.validate.comparability import recipe_of
from tmdeploy.validate.samples import ImageFiles, Samples, Source


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

    A checkpoint takes method, schedule, image size and heads of the exported file beside it: plain DeiT weights carry
    none of them.

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
    exporter = next((runner for runner in opened.values() if runner.metadata is not None), None)
    metadata = exporter.metadata if exporter is not None else None
    for path in (reference, candidate):
        if path in opened:
            continue
        options: dict[str, object] = {"trust_checkpoint": trust_checkpoint, "arch": arch, "num_heads": num_heads}
        if exporter is not None and metadata is not None:
            height, width = metadata.preprocessing.image_size
            options["recipe"] = recipe_of(exporter)
            options["num_heads"] = num_heads or metadata.architecture.get("heads")
            options["image_size"] = height if height == width else None
            options["pixels_in"] = metadata.preprocessing_in_graph
        opened[path] = open_runner(path, threads=threads, **options)
    first, second = opened[reference], opened[candidate]
    if first.preprocessing.image_size != second.preprocessing.image_size:
        sizes = [" x ".join(map(str, runner.preprocessing.image_size)) for runner in (first, second)]
        raise UsageError(f"{first.name} takes images of {sizes[0]} pixels, {second.name} of {sizes[1]}")
    return first, second


def sample_source(
    reference: Runner, candidate: Runner, data: Sequence[str | Path], *, random: int, limit: int | None = None
) -> Source:
    """Real images where there are any, read in portions; else seeded random ones.

    Args:
        reference: Compared on them.
        candidate: Compared on them; its preprocessing is used. Pixels, if either takes pixels.
        data: Files, folders, globs.
        random: How many random images without data.
        limit: At most this many real ones.

    Raises:
        DataError: A source does not exist or has no images.
    """
    spec, in_graph = candidate.preprocessing, candidate.pixels_in or reference.pixels_in
    if not data:
        images = random_images(random, spec, in_graph=in_graph)
        return Samples(images, tuple(f"random {n}" for n in range(random)), f"{random} seeded random images")
    reader = ImageReader(find_images(data)[:limit], spec, in_graph=in_graph)
    return ImageFiles(reader, ", ".join(map(str, data)), candidate.class_names or reference.class_names)


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
