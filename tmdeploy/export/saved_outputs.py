"""Images and logits that a training run saved: `--against outputs.npz`, for those who cannot bring the model."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.preprocessing import normalise
from tmdeploy.errors import DataError

_MOST_BYTES = 2**31  # of what the file unpacks to
_REMEDY = (
    "Save it with numpy.savez(path, images=images, logits=logits): f32 [n, 3, H, W], normalised, or uint8 [n, H, W, 3] "
    "pixels; f32 [n, classes] (docs/proof.md)"
)


@dataclass(frozen=True)
class SavedOutputs:
    """What the file holds.

    Attributes:
        images: f32 [n, channels, H, W], normalised.
        logits: f32 [n, classes]; features of a model without a head.
        pixels: Whether the file holds pixels, so that mean and standard deviation take part in the proof.
    """

    images: NDArray[np.float32]
    logits: NDArray[np.float32]
    pixels: bool


def read_outputs(path: Path, config: VitConfig, preprocessing: Preprocessing) -> SavedOutputs:
    """Read `images` and `logits`; nothing is unpickled, and no more is unpacked than the arrays' declared sizes allow.

    Args:
        path: An `.npz`.
        config: The model they are of.
        preprocessing: How pixels are normalised.

    Raises:
        DataError: Missing, damaged, too large, or no outputs of such a model.
    """
    if not path.is_file():
        what = "is no regular file" if path.exists() else "no such file"
        raise DataError(what, path=path, remedy="Check the path of --against")
    _check_declared(path)
    try:
        with np.load(path, allow_pickle=False) as held:
            images, logits = held["images"], held["logits"]
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged files
        raise DataError(f"cannot be read ({error})", path=path, remedy=_REMEDY) from error
    pixels = _check_images(images, config, path)
    _check_logits(logits, len(images), config, path)
    normalised = normalise(images, preprocessing) if pixels else images.astype(np.float32)
    return SavedOutputs(normalised, logits.astype(np.float32), pixels)


def _check_declared(path: Path) -> None:
    """Names, types and sizes, from the headers alone: an array is as large as its file in the archive, and bounded."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in ("images.npy", "logits.npy"):
                if name not in members:
                    held = ", ".join(sorted(members)[:5]) or "nothing"
                    raise DataError(f"has no array '{name[:-4]}'; it holds {held}", path=path, remedy=_REMEDY)
                with archive.open(members[name]) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(stream)
                    declared = stream.tell() + math.prod(shape) * dtype.itemsize
                if dtype.hasobject:
                    raise DataError(f"'{name[:-4]}' holds Python objects, not numbers", path=path, remedy=_REMEDY)
                if declared > _MOST_BYTES:
                    raise DataError(
                        f"'{name[:-4]}' takes {declared / 2**30:.1f} GiB",
                        path=path,
                        remedy="Save fewer images: 64 are plenty",
                    )
                if declared != members[name].file_size:
                    raise ValueError(f"'{name[:-4]}' is not as long as it says")
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"is no .npz file, or a damaged one ({error})", path=path, remedy=_REMEDY) from error


def _check_images(images: NDArray[np.generic], config: VitConfig, path: Path) -> bool:
    height, width = config.image_size
    planes = (config.in_channels, height, width)
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == (height, width, 3) and planes[0] == 3:
        pixels = True
    elif images.dtype in (np.float32, np.float64) and images.ndim == 4 and images.shape[1:] == planes:
        pixels = False
    else:
        raise DataError(
            f"'images' is {images.dtype} {list(images.shape)}; the model takes float32 "
            f"[n, {', '.join(map(str, planes))}], "
            f"normalised, or uint8 [n, {height}, {width}, 3]",
            path=path,
            remedy="Save what the model was given",
        )
    if not len(images):
        raise DataError("holds no image", path=path, remedy=_REMEDY)
    if not pixels and not np.isfinite(images).all():
        raise DataError("'images' has values that are not finite", path=path, remedy=_REMEDY)
    return pixels


def _check_logits(logits: NDArray[np.generic], images: int, config: VitConfig, path: Path) -> None:
    outputs = config.num_classes or config.width
    if logits.dtype == np.float16:
        raise DataError(
            "'logits' is float16, too coarse to prove anything",
            path=path,
            remedy="Run the model in float32 and save those",
        )
    if logits.dtype not in (np.float32, np.float64) or logits.shape != (images, outputs):
        raise DataError(
            f"'logits' is {logits.dtype} {list(logits.shape)}; for {images} images the model returns float32 "
            f"{[images, outputs]}",
            path=path,
            remedy=_REMEDY,
        )
