"""How a checkpoint is opened, where its file does not say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tmdeploy.card.recipe import Recipe


@dataclass(frozen=True)
class CheckpointOptions:
    """Options of `backends.pytorch.open_runner`, by the same names; `bench` also takes `auto` as device."""

    recipe: Recipe | None = None
    arch: str | None = None
    num_heads: int | None = None
    assume: tuple[str, ...] = ()
    image_size: int | None = None
    pixels_in: bool = False
    ema: bool = False
    ignore_extra: bool = False
    trust_checkpoint: bool = False
    device: str = "cpu"

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of `open_runner`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
