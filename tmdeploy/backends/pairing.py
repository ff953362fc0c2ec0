"""Opening models so that they can be compared: same method, same schedule, same pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from tmdeploy.backends.base import Runner, backend_for, open_runner
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.images import ImageReader, find_images, random_images
from tmdeploy.data.labels import folders_in_order, labels_of
from tmdeploy.data.samples import ImageFiles, Samples, Source, counted
from tmdeploy.errors import UsageError
from tmdeploy.models.assume import COMPUTE_KEYS, Assumed


@contextmanager
def open_pair(
    reference: Path,
    candidate: Path,
    *,
    threads: int | None = None,
    checkpoint: CheckpointOptions | None = None,
    backend: str | None = None,
) -> Iterator[tuple[Runner, Runner]]:
    """Open two models for comparison, and close them.

    A checkpoint takes method, schedule, image size and all else that its weights do not show of the exported file
    beside it: plain DeiT weights carry none of them.

    Args:
        reference: Any model.
        candidate: Any model.
        threads: Threads of both backends.
        checkpoint: How to open a checkpoint, where the user said so.
        backend: Backend of the candidate; None takes its suffix's default. The reference always runs on its default.

    Raises:
        UsageError: The two take different images, or there is no such backend for the candidate.
    """
    wanted = ((reference, None), (candidate, backend))
    opened: dict[tuple[Path, str | None], Runner] = {}
    with ExitStack() as runners:
        for path, choice in wanted:
            if not backend_for(path, choice).reads_checkpoints and (path, choice) not in opened:
                runner = open_runner(path, threads=threads, backend=choice)
                opened[path, choice] = runners.enter_context(runner)
        options = options_like(list(opened.values()), checkpoint or CheckpointOptions())
        for path, choice in wanted:
            if (path, choice) not in opened:
                runner = open_runner(path, threads=threads, backend=choice, **options.keywords())
                opened[path, choice] = runners.enter_context(runner)
        first, second = (opened[key] for key in wanted)
        if first.preprocessing.image_size != second.preprocessing.image_size:
            sizes = [" x ".join(map(str, runner.preprocessing.image_size)) for runner in (first, second)]
            raise UsageError(f"{first.name} takes images of {sizes[0]} pixels, {second.name} of {sizes[1]}")
        yield first, second


def options_like(exported: Sequence[Runner], given: CheckpointOptions) -> CheckpointOptions:
    """How to open a checkpoint beside exported files: as the first of them that carries metadata was exported.

    Args:
        exported: Opened files.
        given: What the user said, which wins.
    """
    metadata = next((runner.metadata for runner in exported if runner.metadata is not None), None)
    if metadata is None:
        return given
    config = metadata.card.architecture
    height, width = config.image_size
    said = Assumed.parse(given.assume, num_heads=given.num_heads)
    # a file of an older version may not state all, and what it does not is no more than a default
    stated = {} if given.arch is not None else config.model_dump(include=config.model_fields_set)
    unsaid = [key for key in COMPUTE_KEYS if stated.get(key) is not None and getattr(said, key) is None]
    return replace(
        given,
        recipe=given.recipe or metadata.card.recipe,
        assume=(*given.assume, *(f"{key}={stated[key]}" for key in unsaid)),
        image_size=given.image_size or (height if height == width else None),
        pixels_in=metadata.preprocessing_in_graph,
    )


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
        return _random_samples(random, spec, in_graph=in_graph)
    reader = ImageReader(find_images(data)[:limit], spec, in_graph=in_graph)
    labels, said = image_labels(reader.paths, candidate if candidate.class_names else reference)
    return ImageFiles(reader, ", ".join(map(str, data)) + said, labels)


def load_samples(runner: Runner, data: Sequence[str | Path], *, random: int, limit: int | None = None) -> Samples:
    """Real images where there are any, else seeded random ones.

    Args:
        runner: The model that takes them as input.
        data: Files, folders, globs.
        random: How many random images without data.
        limit: At most this many real ones.

    Raises:
        DataError: None could be read.
    """
    spec, in_graph = runner.preprocessing, runner.pixels_in
    if not data:
        return _random_samples(random, spec, in_graph=in_graph)
    reader = ImageReader(find_images(data)[:limit], spec, in_graph=in_graph)
    batch = reader.all()
    labels, said = image_labels(reader.paths, runner)
    return Samples(
        batch.images,
        tuple(path.name for path in batch.paths),
        f"{counted(len(batch.paths), 'image')} from {', '.join(map(str, data))}{said}",
        labels=np.array([labels[path] for path in batch.paths], dtype=np.int64),
        skipped=tuple((str(path), reason) for path, reason in reader.skipped),
    )


def _random_samples(count: int, spec: Preprocessing, *, in_graph: bool) -> Samples:
    names = tuple(f"random {number}" for number in range(count))
    return Samples(random_images(count, spec, in_graph=in_graph), names, counted(count, "seeded random image"))


def image_labels(paths: Sequence[Path], runner: Runner) -> tuple[dict[Path, int], str]:
    """Class of every image by the model's own names and number of classes, -1 where nothing tells.

    Returns:
        By path, and what a report should say about them, to be put behind where the images are from.
    """
    classes = None if runner.card is None else runner.card.num_classes
    if classes == 0:  # features: the place of the largest is no class
        return dict.fromkeys(paths, -1), ""
    names = runner.class_names if classes is None or len(runner.class_names) == classes else ()
    known = labels_of(paths, class_names=names, num_classes=classes)
    ordered = folders_in_order(paths, class_names=names, num_classes=classes)
    said = f" (classes: its {len(ordered)} folders in sorted order)" if ordered else ""
    return {path: -1 if label is None else label for path, label in zip(paths, known, strict=True)}, said
