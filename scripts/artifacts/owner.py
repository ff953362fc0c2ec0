"""A plain PyTorch model of the weights in plain.pt, as a user would bring it: it imports nothing of tmdeploy."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """x [B, N, 48] -> [B, N, 48], 3 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = 3, 16, 16**-0.5
        self.qkv, self.proj = nn.Linear(48, 144), nn.Linear(48, 48)

    def forward(self, x: Tensor) -> Tensor:
        """Softmax attention."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 3, 16).permute(2, 0, 3, 1, 4)
        attended: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return attended


class Mlp(nn.Module):
    """x [B, N, 48] -> [B, N, 48]."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(48, 96), act, nn.Linear(96, 48)

    def forward(self, x: Tensor) -> Tensor:
        """Linear, activation, linear."""
        hidden: Tensor = self.fc2(self.act(self.fc1(x)))
        return hidden


class Block(nn.Module):
    """x [B, N, 48] -> [B, N, 48]."""

    norm_placement = "pre"

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(48, eps=1e-6), Attention()
        self.norm2, self.mlp = nn.LayerNorm(48, eps=1e-6), Mlp(act)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then MLP, each with its residual."""
        attended: Tensor = self.attn(self.norm1(x))
        x = x + attended
        hidden: Tensor = self.mlp(self.norm2(x))
        return x + hidden


class PatchEmbed(nn.Module):
    """Images [B, 3, 48, 48] -> tokens [B, 36, 48]."""

    img_size, num_patches = (48, 48), 36

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 48, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Row by row."""
        tokens: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return tokens


class Vit(nn.Module):
    """Images [B, 3, 48, 48] -> logits [B, 10]."""

    pretrained_cfg: ClassVar = {
        "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.9, "interpolation": "bicubic",
    }  # fmt: skip

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.embed_dim, self.global_pool, self.num_prefix_tokens = 48, "token", 1
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 48))
        self.pos_embed = nn.Parameter(torch.zeros(1, 37, 48))
        self.blocks = nn.Sequential(Block(act), Block(act))
        self.norm, self.head = nn.LayerNorm(48, eps=1e-6), nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        """The class token feeds the head."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def build(act: nn.Module | None = None) -> Vit:
    """With weights that a checkpoint is to replace."""
    return Vit(act or nn.GELU()).eval()


def loaded(act: nn.Module | None = None) -> Vit:
    """With the weights of plain.pt."""
    model = build(act)
    model.load_state_dict(torch.load("plain.pt"))
    return model
