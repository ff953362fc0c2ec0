"""Position embeddings for another image size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_pos_embed(
    pos_embed: Tensor,
    *,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    num_prefix: int,
    antialias: bool = True,
) -> Tensor:
    """Interpolate a position embedding to another patch grid: bicubic, in float32.

    Args:
        pos_embed: [1, P + h * w, C] float; the prefix tokens' part comes first.
        old_grid: h, w: patches down and across that it was trained for.
        new_grid: Patches down and across wanted.
        num_prefix: P: prefix tokens it covers, kept as they are; 0 if it covers patch tokens only.
        antialias: Use antialiasing, like timm; the official DeiT and EViT do not.

    Returns:
        [1, P + new_h * new_w, C], of the same dtype.

    Raises:
        ValueError: It does not have P + h * w positions.
    """
    positions = num_prefix + old_grid[0] * old_grid[1]
    if pos_embed.shape[1] != positions:
        raise ValueError(f"{pos_embed.shape[1]} positions, not {positions} (= {num_prefix} + {old_grid})")
    if old_grid == new_grid:
        return pos_embed
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    image = patches.float().reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=list(new_grid), mode="bicubic", antialias=antialias)
    return torch.cat([prefix, image.permute(0, 2, 3, 1).flatten(1, 2).to(pos_embed.dtype)], dim=1)
