"""From a picture to the model's input, with Pillow and numpy: timm's evaluation transform without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tmdeploy.card.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image


def resize_and_crop(image: Image, spec: Preprocessing) -> Image:
    """Resize the shorter side to floor(size / crop_pct), then crop the centre (timm and torchvision's rules).

    In mode `squash` both sides are resized to that, ignoring the aspect ratio.

    Like timm, this ignores EXIF orientation: the published accuracies were measured that way.

    Args:
        image: Any mode; becomes RGB (an alpha channel is dropped, 16-bit greys are scaled down).
        spec: Size, interpolation, crop.

    Returns:
        RGB, `spec.image_size`.
    """
    from PIL import Image as Pillow

    rgb = _to_rgb(image)
    height, width = spec.image_size
    size = resized_size(rgb.size, spec)
    filters = {
        "nearest": Pillow.Resampling.NEAREST,
        "bilinear": Pillow.Resampling.BILINEAR,
        "bicubic": Pillow.Resampling.BICUBIC,
        "lanczos": Pillow.Resampling.LANCZOS,
    }
    resized = rgb if size == rgb.size else rgb.resize(size, filters[spec.interpolation])
    # torchvision's center_crop rounds half to even
    top, left = round((resized.height - height) / 2.0), round((resized.width - width) / 2.0)
    return resized.crop((left, top, left + width, top + height))


def resized_size(size: tuple[int, int], spec: Preprocessing) -> tuple[int, int]:
    """Size before the crop.

    Rounding matters: one more pixel shifts the centre, and the model sees another picture. For a square model the
    longer side is truncated (torchvision's Resize), for any other both are rounded (timm's ResizeKeepRatio). Mode
    `squash` ignores the aspect ratio and resizes each side to its own target.

    Args:
        size: Width and height of the picture.
        spec: Size of the model's input, and crop.

    Returns:
        Width, height.
    """
    width, height = size
    target_height, target_width = (math.floor(side / spec.crop_pct) for side in spec.image_size)
    if spec.crop_mode == "squash":
        return target_width, target_height
    if target_height == target_width:
        longer = int(target_width * max(size) / min(size))
        return (target_width, longer) if width <= height else (longer, target_height)
    ratio = min(height / target_height, width / target_width)
    return round(width / ratio), round(height / ratio)


def pixels(image: Image, spec: Preprocessing) -> NDArray[np.uint8]:
    """Resized and cropped pixels, uint8 [H, W, 3]: the input of a file exported with `--with-preprocessing`."""
    return np.asarray(resize_and_crop(image, spec), dtype=np.uint8)


def normalise(values: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.float32]:
    """Scale uint8 [..., H, W, 3] to [0, 1], normalise, and put channels first: float32 [..., 3, H, W]."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    scaled = (values.astype(np.float32) / np.float32(255.0) - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3), dtype=np.float32)


def _to_rgb(image: Image) -> Image:
    from PIL import Image as Pillow

    if image.mode in {"I;16", "I;16B", "I;16L", "I"}:  # Pillow would clip 16-bit greys at 255
        grey = np.asarray(image, dtype=np.float32)
        image = Pillow.fromarray((grey / 257.0).clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")
