"""Drawings of which patches were merged into which token, in the style of ToMe's paper."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import StepTrace
from tmdeploy.data.images import told_apart

if TYPE_CHECKING:
    from PIL.Image import Image

DROPPED = -1
_EDGE = (255, 170, 0)  # visible on dark and light pictures


def compose(steps: Sequence[StepTrace], *, tokens: int, num_prefix: int) -> NDArray[np.int64]:
    """Follow every patch through the steps.

    Args:
        steps: In block order; none gives every patch its own token.
        tokens: Tokens that enter the first step.
        num_prefix: Prefix tokens.

    Returns:
        int64 [B, patches]: the token each patch ended in after the last step; -1 = dropped on the way.
    """
    batch = len(steps[0].map) if steps else 1
    where = np.broadcast_to(np.arange(tokens), (batch, tokens)).copy()
    for step in steps:
        moved = np.take_along_axis(step.map.astype(np.int64), np.maximum(where, 0), axis=1)
        where = np.where(where == DROPPED, DROPPED, moved)
    patches: NDArray[np.int64] = where[:, num_prefix:]
    return patches


def fused_slots(steps: Sequence[StepTrace], *, tokens: int, num_prefix: int) -> list[set[int]]:
    """Final tokens of each image into which patches were fused rather than merged (EViT's extra token)."""
    found: list[set[int]] = [set() for _ in range(len(steps[0].map) if steps else 1)]
    for number, step in enumerate(steps):
        for image in range(len(step.map)):
            slots = np.flatnonzero(step.index[image] == -1)
            for slot in slots:
                place = int(slot)
                for later in steps[number + 1 :]:
                    place = int(later.map[image, place]) if place != DROPPED else DROPPED
                if place != DROPPED:
                    found[image].add(place)
    return found


def draw_groups(
    image: Image,
    groups: NDArray[np.int64],
    grid: tuple[int, int],
    *,
    fused: frozenset[int] = frozenset(),
    zoom: int = 2,
) -> Image:
    """Paint every group of merged patches in its mean colour, with borders between groups.

    Single patches stay as they are, dropped ones are darkened, fused ones are hatched.

    Args:
        image: RGB, the model's input (resized and cropped).
        groups: int64 [patches], row by row; -1 = dropped.
        grid: Patches down and across.
        fused: Groups that are an extra token for everything not kept.
        zoom: Pixels of the drawing per pixel of the image.

    Returns:
        RGB, `zoom` times as large as `image`.
    """
    from PIL import Image as Pillow

    rows, columns = grid
    cells = groups.reshape(rows, columns)
    patch_height, patch_width = image.height // rows, image.width // columns
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32).copy()
    label = cells.repeat(patch_height, axis=0).repeat(patch_width, axis=1)
    values, counts = np.unique(cells, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        mask = label == value
        if value == DROPPED:
            pixels[mask] *= 0.25
        elif value in fused:
            pixels[mask] = pixels[mask] * 0.35 + 90.0
        elif count > 1:
            pixels[mask] = pixels[mask].mean(axis=0)
    big = pixels.clip(0, 255).astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
    large = label.repeat(zoom, axis=0).repeat(zoom, axis=1)
    for value in fused:
        down, across = np.indices(large.shape)
        big[(large == value) & ((down + across) % (6 * zoom) < zoom)] = (200, 200, 200)
    edge = np.zeros(large.shape, dtype=bool)
    edge[1:] |= large[1:] != large[:-1]
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    big[edge] = _EDGE
    return Pillow.fromarray(big)


def drawing_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Distinct file names for the drawings of these images, even if the file system ignores case.

    Equal names are told apart by their folders (`a-cat.png`, `b-cat.png`) or suffixes (`cat.jpg.png`), else numbered.
    """
    flat = ["-".join(part for part in Path(name).parts if part not in {"..", "/"}) for name in told_apart(paths)]
    stems = Counter(Path(name).stem.casefold() for name in flat)
    names: dict[str, str] = {}
    for name in flat:
        stem = Path(name).stem if stems[Path(name).stem.casefold()] == 1 else name
        free = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        chosen = next(one for one in free if one.casefold() not in names)
        names[chosen.casefold()] = f"{chosen}.png"
    return tuple(names.values())


def side_by_side(panels: Sequence[tuple[str, Image]]) -> Image:
    """Panels in a row, each with its caption above."""
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=14)
    gap, top = 8, 24
    width = sum(panel.width for _, panel in panels) + gap * (len(panels) + 1)
    height = max(panel.height for _, panel in panels) + top + gap
    sheet = Pillow.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    left = gap
    for caption, panel in panels:
        text = caption
        while text and draw.textlength(text, font=font) > panel.width:
            text = text[:-1]
        draw.text((left, 4), text, fill="black", font=font)
        sheet.paste(panel, (left, top))
        left += panel.width + gap
    return sheet
