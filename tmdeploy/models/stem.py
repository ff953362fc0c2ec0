"""From pixels to patch tokens: the plain stem, and MSTM's multi-scale one (methods.md 1.2)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """One convolution with kernel and stride equal to the patch size.

    Attributes:
        grid_size: Patches down and across.
        num_patches: Their product.
    """

    def __init__(
        self, image_size: tuple[int, int], patch_size: int, in_channels: int, width: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.img_size = image_size
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (image_size[0] // patch_size, image_size[1] // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, in_channels, H, W] to a feature map [B, C, H / patch, W / patch]."""
        out: Tensor = self.proj(images)
        return out


def fuse_scales(maps: Sequence[Tensor], linear: nn.Linear | None, resample: Literal["nearest", "bilinear"]) -> Tensor:
    """Resample feature maps of several scales to the first one's grid, and fuse them.

    Args:
        maps: Each [B, C, h_k, w_k]; the first is on the patch grid.
        linear: Maps the concatenated channels, base scale first, to C; None sums the maps.
        resample: How a map is resampled to the grid.

    Returns:
        Tokens [B, h_0 * w_0, C], row by row.
    """
    grid = list(maps[0].shape[-2:])
    tokens = [_resize(scale, grid, resample).flatten(2).transpose(1, 2) for scale in maps]
    if linear is None:
        return functools.reduce(Tensor.add, tokens)
    fused: Tensor = linear(torch.cat(tokens, dim=-1))
    return fused


def _resize(scale: Tensor, grid: list[int], resample: Literal["nearest", "bilinear"]) -> Tensor:
    if list(scale.shape[-2:]) == grid:
        return scale
    corners = False if resample == "bilinear" else None
    return F.interpolate(scale, size=grid, mode=resample, align_corners=corners)
