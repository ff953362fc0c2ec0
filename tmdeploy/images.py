"""Finding and reading images: files, folders, globs; broken ones are skipped, named and counted."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tmdeploy.errors import DataError
from tmdeploy.metadata import Preprocessing
from tmdeploy.preprocessing import normalise, pixels

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Batch:
    """Images that were read: their paths, and f32 [B, 3, H, W] or uint8 [B, H, W, 3]."""

    paths: tuple[Path, ...]
    images: NDArray[np.generic]


@dataclass
class ImageReader:
    """Reads images in batches and remembers what it skipped.

    Attributes:
        paths: Images to read, in order.
        spec: How pixels become the model's input.
        in_graph: Leave normalisation to the graph: batches are uint8 [B, H, W, 3].
        skipped: Path and reason of every image that could not be read.
    """

    paths: Sequence[Path]
    spec: Preprocessing
    in_graph: bool = False
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield batches of up to `size` readable images."""
        names: list[Path] = []
        rows: list[NDArray[np.uint8]] = []
        for path in self.paths:
            try:
                row = self._read(path)
            except Exception as error:  # Pillow raises a dozen kinds for broken files
                self.skipped.append((path, _reason(error)))
                continue
            names.append(path)
            rows.append(row)
            if len(rows) == size:
                yield self._batch(names, rows)
                names, rows = [], []
        if rows:
            yield self._batch(names, rows)

    def all(self) -> Batch:
        """Every readable image in one batch.

        Raises:
            DataError: None could be read.
        """
        for batch in self.batches(max(1, len(self.paths))):
            return batch
        raise nothing_readable(self.skipped)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        import warnings

        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata does not spoil the pixels
            with Image.open(path) as image:
                return pixels(image, self.spec)

    def _batch(self, names: list[Path], rows: list[NDArray[np.uint8]]) -> Batch:
        stacked = np.stack(rows)
        return Batch(tuple(names), stacked if self.in_graph else normalise(stacked, self.spec))


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders (searched to the bottom) and globs to image paths, sorted within each source.

    In a folder only files with an image's suffix count; a file that is named is taken as it is.

    Raises:
        DataError: A source does not exist or has no images.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = _images_in(path)
            if not inside:
                raise DataError(
                    "no images in this folder", path=path, remedy=f"Looked for {', '.join(sorted(SUFFIXES))}"
                )
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))
            inside = [image for match in matches for image in (_images_in(match) if match.is_dir() else [match])]
            if not inside:
                raise DataError("no such file, folder or match", path=path, remedy="Check the path")
            found.extend(dict.fromkeys(inside))  # `**` matches a folder and what is in it
    return found


def _images_in(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.rglob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file())


def is_among(path: Path, sources: Sequence[str | Path]) -> bool:
    """Whether `find_images` would find this file in one of the folders and globs; without searching the folders."""
    if not path.is_file():
        return False
    for source in sources:
        if Path(source).is_dir():
            inside = path.resolve().is_relative_to(Path(source).resolve())
            if inside and path.suffix.lower() in SUFFIXES:
                return True
        elif not Path(source).exists():
            matches = [Path(match) for match in glob.glob(str(source), recursive=True)]
            if any(match.is_file() and match.samefile(path) for match in matches):
                return True
            if any(is_among(path, [match]) for match in matches if match.is_dir()):
                return True
    return False


def random_images(count: int, spec: Preprocessing, *, in_graph: bool, seed: int = 0) -> NDArray[np.generic]:
    """Smooth random pictures, seeded: low-frequency noise, nearer to photos than white noise.

    Returns:
        f32 [count, 3, H, W], normalised, or uint8 [count, H, W, 3].
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    height, width = spec.image_size
    rows = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noise = rng.integers(-24, 25, (height, width, 3))
        rows.append((smooth + noise).clip(0, 255).astype(np.uint8))
    stacked = np.stack(rows)
    return stacked if in_graph else normalise(stacked, spec)


def nothing_readable(skipped: Sequence[tuple[Path, str]]) -> DataError:
    """The error for a set of images of which none could be read."""
    if not skipped:
        return DataError("no images to read")
    path, reason = skipped[0]
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    return DataError(f"cannot be read as an image: {reason}{more}", path=path, remedy="Give JPEG, PNG or similar files")


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if name == "UnidentifiedImageError":
        return "not an image, or damaged"
    if name.startswith("DecompressionBomb"):
        return "more pixels than is plausible (a decompression bomb?)"
    return " ".join(str(error).split()) or name
