"""How images become a model's input, as data; `tmdeploy.data` does it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tmdeploy.card.fields import Finite, Frozen, Positive, Side


class Preprocessing(Frozen):
    """How pixels become the model's input: resize the shorter side, crop the centre, scale to [0, 1], normalise.

    The resize target of the shorter side is floor(image_size / crop_pct), timm's rule (timm.data.transforms_factory).
    With crop_mode `squash` both sides are resized to their targets, whatever the picture's proportions.
    """

    image_size: tuple[Side, Side] = Field(
        default=(224, 224), description="height and width of the model's input, pixels"
    )
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_pct: float = Field(default=0.875, ge=0.1, le=1.0, description="published models have 0.7 to 1")
    crop_mode: Literal["center", "squash"] = "center"
