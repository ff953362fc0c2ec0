"""Tiny ViTs with random weights, large enough for the methods to have something to do."""

from __future__ import annotations

import torch

from tmdeploy.card.arch import VitConfig
from tmdeploy.models.vit import VisionTransformer

TINY = VitConfig(image_size=(64, 64), patch_size=8, width=48, depth=4, heads=3, mlp_width=96, num_classes=10)


def tiny_vit(seed: int = 0, **changes: object) -> VisionTransformer:
    """64 patch tokens, 4 blocks; weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    model = VisionTransformer(TINY.model_copy(update=changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def tiny_images(batch: int = 3, seed: int = 1) -> torch.Tensor:
    """[B, 3, 64, 64]"""
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
