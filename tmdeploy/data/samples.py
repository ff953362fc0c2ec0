"""The images that models are compared on, in portions that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tmdeploy.data.images import ImageReader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Portion:
    """A portion of the images.

    Attributes:
        images: f32 [B, 3, H, W], normalised, or uint8 [B, H, W, 3], as the candidate takes them.
        names: One per image.
        labels: int64 [B], -1 where unknown.
    """

    images: NDArray[np.generic]
    names: tuple[str, ...]
    labels: Labels


class Source(Protocol):
    """A source of images."""

    @property
    def source(self) -> str:
        """Description for the report."""
        ...

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Path and reason of images that could not be read; complete after the last portion."""
        ...

    def portions(self, size: int) -> Iterator[Portion]:
        """All images in order, up to `size` at a time."""
        ...


def counted(count: int, what: str) -> str:
    """`1 image`, `12 images`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Samples:
    """Images in memory.

    Attributes:
        images: f32 [B, 3, H, W], normalised, or uint8 [B, H, W, 3], as the candidate takes them.
        names: One per image.
        source: Description for the report.
        labels: int64 [B], -1 where unknown; None if there are none.
        skipped: Path and reason of images that could not be read.
    """

    images: NDArray[np.generic]
    names: tuple[str, ...]
    source: str
    labels: Labels | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def portions(self, size: int) -> Iterator[Portion]:
        """All images in order, up to `size` at a time."""
        labels = self.labels if self.labels is not None else np.full(len(self.images), -1, dtype=np.int64)
        for start in range(0, len(self.images), size):
            rows = slice(start, start + size)
            yield Portion(self.images[rows], self.names[rows], labels[rows])


@dataclass(frozen=True)
class ImageFiles:
    """Image files that are read on demand: a validation set does not fit in memory.

    Attributes:
        reader: Reads them and remembers what it skipped.
        where: What the user named, for the report.
        labels: Class by path, -1 or absent where unknown.
    """

    reader: ImageReader
    where: str
    labels: Mapping[Path, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Description for the report."""
        return f"{counted(len(self.reader.paths) - len(self.reader.skipped), 'image')} from {self.where}"

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Path and reason of images that could not be read; complete after the last portion."""
        return tuple((str(path), reason) for path, reason in self.reader.skipped)

    def portions(self, size: int) -> Iterator[Portion]:
        """All readable images in order, up to `size` at a time."""
        for batch in self.reader.batches(size):
            labels = np.array([self.labels.get(path, -1) for path in batch.paths], dtype=np.int64)
            yield Portion(batch.images, tuple(path.name for path in batch.paths), labels)
