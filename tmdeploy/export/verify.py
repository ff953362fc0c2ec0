"""The exporter's self-check: the file it wrote against the module it wrote it from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.backends.pytorch import PytorchRunner
from tmdeploy.card.card import ModelCard
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.data.images import ImageReader, find_images, random_images
from tmdeploy.data.samples import counted
from tmdeploy.errors import ExportError
from tmdeploy.ops.limits import r_limit
from tmdeploy.report.schemas.validation import ValidationReport
from tmdeploy.system.progress import Progress, silent
from tmdeploy.validate.limits import Limits
from tmdeploy.validate.run import Samples, Schedule, validate

_RANDOM_IMAGES, _REAL_IMAGES = 3, 16


def verify_file(
    path: Path,
    module: nn.Module,
    metadata: ArtifactMetadata,
    *,
    images: Sequence[Path],
    name: str,
    progress: Progress = silent,
) -> ValidationReport:
    """Compare a freshly written file with PyTorch at several batch sizes and schedules.

    Args:
        path: The file, still under its temporary name.
        module: The patched module.
        metadata: The file's metadata.
        images: Real images or folders to compare on, besides random ones.
        name: What to call the file in messages.
        progress: Called with a short description.

    Raises:
        ExportError: The file does not compute what PyTorch computes.
    """
    card = metadata.card
    reference = PytorchRunner(
        module, card, name=card.source_name, path=Path(card.source_name), pixels_in=metadata.preprocessing_in_graph
    )
    # what is in the file is what is proven
    with reference, OnnxRuntimeRunner(path, name=name, native=False) as candidate:
        report = validate(
            reference,
            candidate,
            comparison_images(images, card, in_graph=metadata.preprocessing_in_graph),
            batch_sizes=(1, 3) if metadata.dynamic_batch else (1,),
            schedules=_schedules(metadata),
            # a handful of images: one near-tie in three comparisons is no verdict, nor half of them in fp16
            limits=Limits(max_ties=0.34 if metadata.precision == "fp32" else None),
            progress=progress,
        )
    failed = next((check for check in report.checks if not check.passed), None)
    if failed is not None:
        row = report.differing[0] if report.differing else None
        why = f"; {row.image}, block {row.block}: {row.reason}" if row is not None and row.reason else ""
        why = "".join(f"; {wrong}" for one in report.realisations for wrong in one.wrong) or why
        raise ExportError(
            f"the exported file does not compute what PyTorch computes: {failed.level} level, {failed.name} is "
            f"{failed.value:.3g}, the limit {failed.limit:.3g}{why}",
            path=name,
            remedy="No file was written. Export with --no-verify to look at it, and report this",
        )
    return report


def comparison_images(
    images: Sequence[Path],
    card: ModelCard,
    *,
    in_graph: bool = False,
    random: int = _RANDOM_IMAGES,
) -> Samples:
    """Random images, and up to 16 real ones.

    Args:
        images: Real images or folders.
        card: The model's card.
        in_graph: Leave normalisation to the graph: uint8 [B, H, W, 3].
        random: How many random ones.

    Raises:
        DataError: A source has no images, or none can be read.
    """
    config, spec = card.architecture, card.preprocessing
    names = [f"random {number}" for number in range(random)]
    source = counted(random, "random image")
    if config.in_channels != 3:
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((random, config.in_channels, *config.image_size), dtype=np.float32)
        return Samples(noise, tuple(names), source)
    made = random_images(random, spec, in_graph=in_graph)
    if not images:
        return Samples(made, tuple(names), source)
    reader = ImageReader(find_images(list(images))[:_REAL_IMAGES], spec, in_graph=in_graph)
    real = reader.all()
    names += [path.name for path in real.paths]
    skipped = tuple((str(path), reason) for path, reason in reader.skipped)
    together = np.concatenate([made, real.images])
    return Samples(together, tuple(names), f"{source} and {len(real.paths)} real ones", skipped=skipped)


def _schedules(metadata: ArtifactMetadata) -> tuple[Schedule, ...]:
    """The default, nothing removed, and as much as can be removed."""
    if metadata.schedule_input is None:
        return (None,)
    tokens, prefix = metadata.card.architecture.tokens, metadata.card.num_prefix
    steps = len(metadata.card.reduction.layers)
    extremes = (0, r_limit(tokens, prefix)) if metadata.schedule_input == "r" else (tokens - prefix, 1)
    return (None, *((amount,) * steps for amount in extremes))
