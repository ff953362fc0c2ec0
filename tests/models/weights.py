"""Small models and weights that the tests of this folder share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tmdeploy.card.arch import VitConfig
from tmdeploy.models.vit import VisionTransformer

SMALL = VitConfig(
    image_size=(32, 32), patch_size=8, width=64, depth=2, heads=1, mlp_width=128, num_classes=5, name="vit"
)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter values that matter: zeros and ones would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(generator=generator).mul_(0.1)
            if ("norm" in name and name.endswith("weight")) or name.endswith("gamma"):
                parameter.add_(1.0)


def small_model(**changes: object) -> VisionTransformer:
    model = VisionTransformer(SMALL.replace(**changes)).eval()
    randomise(model)
    return model


def small_weights(**changes: object) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in small_model(**changes).state_dict().items()}


def shapes_of(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
