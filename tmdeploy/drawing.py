"""Drawings of which patches were merged into which token, in the style of ToMe's paper."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Runner, StepTrace
from tmdeploy.data.images import opened_image, told_apart
from tmdeploy.data.preprocessing import resize_and_crop
from tmdeploy.errors import UsageError
from tmdeploy.report.schemas.drawings import Panel
from tmdeploy.report.text import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

DROPPED = -1
_EDGE = (255, 170, 0)  # visible on dark and light pictures


def drawing_of(
    runner: Runner, path: Path, images: NDArray[np.generic], amounts: Sequence[int] | None, blocks: Sequence[int] = ()
) -> tuple[Image, tuple[Panel, ...], bool]:
    """An image and the groups of its patches after some blocks, side by side.

    Args:
        runner: The model whose plans are drawn.
        path: The image.
        images: The same as the runner's input, a batch of one.
        amounts: The schedule; None is the model's own.
        blocks: After which blocks; none: after the last step.

    Returns:
        The picture, what its captions say, and whether the model's logits are numbers.

    Raises:
        UsageError: The model reduces nothing, has no step in one of the blocks, or no known grid of patches.
    """
    from PIL import Image as Pillow

    trace = runner.trace(images, amounts)
    if not trace.steps:
        raise UsageError(f"{runner.name} reduces no tokens: there is nothing to draw")
    assert runner.card is not None  # noqa: S101 - nothing else traces
    config = runner.card.architecture
    if config.grid is None:
        raise UsageError(f"{runner.name} does not say how its patches lie, so there is nothing to draw on")
    known = [step.block for step in trace.steps]
    for wanted in blocks:
        if wanted not in known:
            raise UsageError(
                f"--block {wanted}: no reduction step there", remedy=f"Choose from: {', '.join(map(str, known))}"
            )
    with opened_image(path, runner.preprocessing) as opened:
        picture = resize_and_crop(opened, runner.preprocessing)
    zoom = max(1, round(448 / max(picture.size)))
    large = picture.resize((picture.width * zoom, picture.height * zoom), Pillow.Resampling.NEAREST)
    panels = [(f"{one_line(path.name)}: {config.tokens - config.num_prefix} patches", large)]
    counts = []
    for wanted in blocks or [known[-1]]:
        steps = trace.steps[: known.index(wanted) + 1]
        groups = compose(steps, tokens=config.tokens, num_prefix=config.num_prefix)[0]
        fused = frozenset(fused_slots(steps, tokens=config.tokens, num_prefix=config.num_prefix)[0])
        left = steps[-1].index.shape[1] - config.num_prefix
        dropped = int((groups == DROPPED).sum())
        caption = f"after block {wanted}: {left} tokens" + (f", {dropped} patches dropped" if dropped else "")
        counts.append(Panel(block=wanted, tokens=left, dropped=dropped))
        panels.append((caption, draw_groups(picture, groups, config.grid, fused=fused, zoom=zoom)))
    return side_by_side(panels), tuple(counts), bool(np.isfinite(trace.logits).all())


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
