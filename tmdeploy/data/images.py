"""Finding and reading images: files, folders, globs; broken ones are skipped, named and counted."""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.preprocessing import normalise, pixels, resized_size
from tmdeploy.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow's names of the formats
_PLUGINS = ("Jpeg", "Png", "Bmp", "Gif", "WebP", "Tiff", "Ppm")
# Images of formats that are not read: reported, not passed over in silence.
UNREAD = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".svg", ".eps"}
MAX_PIXELS = 2**30 // 12  # Pillow's own limit for the image as it is; applied here to the resized image too


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
            except Exception as error:  # Pillow raises a dozen kinds of exceptions for broken files
                self.skipped.append((path, _reason(error, path)))
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
            DataError: No image could be read.
        """
        for batch in self.batches(max(1, len(self.paths))):
            return batch
        raise nothing_readable(self.skipped)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        with opened_image(path, self.spec) as image:
            return pixels(image, self.spec)

    def _batch(self, names: list[Path], rows: list[NDArray[np.uint8]]) -> Batch:
        stacked = np.stack(rows)
        return Batch(tuple(names), stacked if self.in_graph else normalise(stacked, self.spec))


@contextlib.contextmanager
def opened_image(path: Path, spec: Preprocessing) -> Iterator[Image]:
    """Open an image; no other code does.

    The content decides the format, and only `FORMATS` are accepted: Pillow would hand PostScript to Ghostscript.

    Args:
        path: A regular file; reading a pipe might never end.
        spec: The target; an image that resizing would make huge is refused before it is decoded.

    Raises:
        OSError: It cannot be read, is no image, or is damaged.
        ValueError: It has too many pixels, before or after resizing.
    """
    from PIL import Image as Pillow

    for plugin in _PLUGINS:  # or Pillow would load all of its plugins to find one
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # raises the reason why it cannot be searched
    if not stat.S_ISREG(mode):
        raise OSError("a pipe, device or folder, not a file")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Pillow.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata does not matter for the pixels
        with Pillow.open(path, formats=FORMATS) as image:
            width, height = resized_size(image.size, spec)
            if width * height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, of which resizing makes {width} x {height}")
            yield image


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders (searched to the bottom) and globs to image paths, sorted within each source.

    In a folder only files with an image's suffix count; a file that is named is taken as it is. Links to folders are
    followed once. Unreadable entries (photos of other formats, folders without permission) come last, so that
    `ImageReader` lists them among what it skipped.

    Raises:
        DataError: A source does not exist or has no images.
    """
    found: list[Path] = []
    for source in sources:
        if not str(source):
            raise DataError("an empty name where images should be", remedy="Name files, folders or globs")
        path = Path(source)
        if path.is_dir():
            inside = _images_in(path)
            if inside == [path]:
                raise DataError("this folder cannot be read", path=path, remedy="Check its permissions")
            if not inside:
                raise DataError(
                    "no images in this folder", path=path, remedy=f"Looked for {', '.join(sorted(SUFFIXES))}"
                )
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            matches = _matches(str(source))
            inside = [image for match in matches for image in (_images_in(match) if match.is_dir() else [match])]
            if not inside:
                raise DataError("no such file, folder or match", path=path, remedy="Check the path")
            found.extend(dict.fromkeys(inside))  # `**` matches a folder and what is in it
    return found


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
            matches = _matches(str(source))
            if any(match.is_file() and match.samefile(path) for match in matches):
                return True
            if is_among(path, [match for match in matches if match.is_dir()]):
                return True
    return False


def told_apart(paths: Sequence[Path]) -> tuple[str, ...]:
    """File names, with as many parent folders as it takes to tell equal names apart."""
    shown = [path.name for path in paths]
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(shown):
        alike.setdefault(name, []).append(number)
    for numbers in alike.values():
        folders = {paths[number].parent for number in numbers}
        if len(folders) > 1:
            depth = next(
                depth
                for depth in range(2, max(len(folder.parts) for folder in folders) + 2)
                if len({folder.parts[1 - depth :] for folder in folders}) == len(folders)
            )
            for number in numbers:
                shown[number] = str(Path(*paths[number].parts[-depth:]))
    return tuple(shown)


def _matches(pattern: str) -> list[Path]:
    """What a glob matches, sorted. `**` is any folder below; links are followed once, since they may form cycles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(Path(match) for match in glob.glob(pattern))
    place = parts.index("**")
    rest = parts[place + 1 :]
    found: list[Path] = []
    for base in _matches(str(Path(*parts[:place]))) if place else [Path()]:
        if not rest:
            found.append(base)
        elif base.is_dir():
            folders = [folder for folder, _ in _walk(base) if not _is_hidden(folder.relative_to(base))]
            found += [match for folder in folders for match in _matches(os.path.join(glob.escape(str(folder)), *rest))]
    return sorted(dict.fromkeys(found))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _images_in(folder: Path) -> list[Path]:
    """All images below a folder, sorted, then what cannot be read: photos of other formats, and folders."""
    images, unread = [], []
    for inside, names in _walk(folder):
        if names is None:
            unread.append(inside)
            continue
        images += [inside / name for name in names if Path(name).suffix.lower() in SUFFIXES]
        unread += [inside / name for name in names if Path(name).suffix.lower() in UNREAD]
    return sorted(images) + sorted(unread)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str] | None]]:
    """This folder and all below it, each with the names of its files; None for a folder that cannot be listed.

    Links to folders come last and are followed only to folders not yet visited.
    """
    seen: set[tuple[int, int]] = set()
    waiting, links = [folder], [folder]
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        try:
            found = here.stat()
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            names: list[str] = []
            linked: list[Path] = []
            with os.scandir(here) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        names.append(entry.name)
                    else:
                        (linked if entry.is_symlink() else waiting).append(here / entry.name)
        except OSError:
            yield here, None
            continue
        links += sorted(linked)
        yield here, names


def random_images(count: int, spec: Preprocessing, *, in_graph: bool, seed: int = 0) -> NDArray[np.generic]:
    """Seeded random images of low-frequency noise, closer to photos than white noise.

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
    """The error to raise when none of the images could be read."""
    if not skipped:
        return DataError("no images to read")
    path, reason = skipped[0]
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    return DataError(f"cannot be read as an image: {reason}{more}", path=path, remedy="Give JPEG, PNG or similar files")


def _reason(error: Exception, path: Path) -> str:
    name = type(error).__name__
    if path.suffix.lower() in UNREAD and not isinstance(error, FileNotFoundError):
        return f"{path.suffix[1:].upper()} is not read: convert it to JPEG or PNG"
    if name == "UnidentifiedImageError":
        return "not an image, or damaged"
    if name.startswith("DecompressionBomb"):
        return "more pixels than is plausible (a decompression bomb?)"
    what = error.strerror if isinstance(error, OSError) and error.strerror else error
    return " ".join(str(what).split()) or name
