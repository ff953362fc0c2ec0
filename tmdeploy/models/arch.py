"""Architectures: what a ViT is made of, by name or from a checkpoint's shapes. No torch in here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class VitConfig(BaseModel):
    """A ViT of the ViT/DeiT family, enough to build the module and to count its MACs.

    Attributes:
        name: Registered name, such as `deit_small_patch16_224`; `vit` for one inferred from shapes alone.
        image_size: Height and width of the input, pixels; multiples of `patch_size`.
        patch_size: Side of a patch, pixels.
        width: Embedding width C.
        depth: Blocks.
        heads: Attention heads.
        mlp_width: Hidden width of the MLP.
        num_classes: Outputs of the head; 0 means no head (features).
        in_channels: Input channels.
        class_token: Whether there is one.
        distilled: Whether there is a distillation token and a second head.
        registers: Register tokens, after the class token.
        pool: `token`: the class token feeds the head; `avg`: the (size-weighted) mean of the patch tokens does.
        pos_embed_prefix: Whether the position embedding covers the prefix tokens.
        qkv_bias: Whether qkv has a bias.
        layer_scale: Whether blocks have `ls1.gamma`, `ls2.gamma`.
        pre_norm: Whether there is a LayerNorm before block 0 (`norm_pre`).
        fc_norm: Whether the final LayerNorm comes after pooling (`fc_norm`) instead of before it (`norm`).
        norm_eps: LayerNorm's epsilon.
        scales: Patch sizes of extra scales (MSTM's multi-scale stem, `ms_embed.*`); empty: a plain stem.
        fusion: How the scales are fused: `sum`, or `concat` then a linear layer (`ms_fuse.*`).
        resample: How a coarser scale is brought to the patch grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "vit"
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_width: int = 1536
    num_classes: int = 1000
    in_channels: int = 3
    class_token: bool = True
    distilled: bool = False
    registers: int = 0
    pool: Literal["token", "avg"] = "token"
    pos_embed_prefix: bool = True
    qkv_bias: bool = True
    layer_scale: bool = False
    pre_norm: bool = False
    fc_norm: bool = False
    norm_eps: float = 1e-6
    scales: tuple[int, ...] = ()
    fusion: Literal["sum", "concat"] = "sum"
    resample: Literal["nearest", "bilinear"] = "bilinear"

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_prefix(self) -> int:
        """Prefix tokens: class, distillation, registers."""
        return int(self.class_token) + int(self.distilled) + self.registers

    @property
    def tokens(self) -> int:
        """Tokens that enter block 0."""
        return self.num_prefix + self.grid[0] * self.grid[1]
