"""Architectures: what a ViT is made of, by name or from a checkpoint's shapes. No torch in here."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tmdeploy.card.arch_table import rows
from tmdeploy.card.fields import Side, first_problem
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import UsageError

# The deepest published ViTs have a tenth of this. Bounds on what a file may make us allocate, or count to.
MAX_DEPTH = 512
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


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
        patch_bias: Whether the patch embedding has a bias.
        layer_scale: Whether blocks have `ls1.gamma`, `ls2.gamma`.
        pre_norm: Whether there is a LayerNorm before block 0 (`norm_pre`).
        fc_norm: Whether the final LayerNorm comes after pooling (`fc_norm`) instead of before it (`norm`).
        norm_eps: LayerNorm's epsilon.
        act: The MLP's activation: `gelu` (exact), `gelu_tanh` (its tanh approximation), `quick_gelu` (OpenAI's CLIP:
            x sigmoid(1.702 x)), `relu` or `silu`.
        norm_placement: Where a block normalises: `pre`: x + f(norm(x)); `res_post`: x + norm(f(x)) (Swin v2's, timm's
            ResPostBlock).
        scales: Patch sizes of extra scales (MSTM's multi-scale stem, `ms_embed.*`); empty: a plain stem.
        fusion: How the scales are fused: `sum`, or `concat` then a linear layer (`ms_fuse.*`).
        resample: How a coarser scale is brought to the patch grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "vit"
    image_size: tuple[Side, Side] = (224, 224)
    patch_size: int = 16
    width: int = Field(default=384, le=1 << 16)
    depth: int = Field(default=12, le=MAX_DEPTH)
    heads: int = 6
    mlp_width: int = Field(default=1536, le=1 << 18)
    num_classes: int = Field(default=1000, le=1 << 24)
    in_channels: int = Field(default=3, le=1 << 12)
    class_token: bool = True
    distilled: bool = False
    registers: int = Field(default=0, le=1 << 12)
    pool: Literal["token", "avg"] = "token"
    pos_embed_prefix: bool = True
    qkv_bias: bool = True
    patch_bias: bool = True
    layer_scale: bool = False
    pre_norm: bool = False
    fc_norm: bool = False
    norm_eps: float = Field(default=1e-6, gt=0.0, lt=1.0)
    act: Activation = "gelu"
    norm_placement: Literal["pre", "res_post"] = "pre"
    scales: tuple[int, ...] = Field(default=(), max_length=16)
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

    @model_validator(mode="after")
    def _is_possible(self) -> VitConfig:
        sizes = (*self.image_size, self.patch_size, self.width, self.depth, self.heads, self.mlp_width)
        if min(*sizes, self.in_channels) < 1 or min(self.num_classes, self.registers) < 0:
            raise ValueError("a size or count is not positive")
        for side in (self.patch_size, *self.scales):
            if side < 1 or any(length % side for length in self.image_size):
                height, width = self.image_size
                raise ValueError(f"image size {height} x {width} is not a multiple of the patch size {side}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} attention heads")
        if not self.class_token and (self.pool == "token" or self.distilled):
            raise ValueError("class-token pooling and distillation need a class token")
        if self.distilled and (self.pool != "token" or self.fc_norm):
            raise ValueError("a distilled model reads its class and distillation tokens, not the mean")
        if self.norm_placement == "res_post" and self.layer_scale:
            raise ValueError("a block that normalises its branches' results (res_post) has no LayerScale beside it")
        return self

    def replace(self, **changes: Any) -> VitConfig:
        """A copy with these fields changed.

        Raises:
            UsageError: The result is not a possible architecture.
        """
        try:
            return VitConfig.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise UsageError(f"architecture '{self.name}': {first_problem(error)}") from None


@dataclass(frozen=True)
class Architecture:
    """A known architecture: its config, and how images become its input.

    Attributes:
        config: What it is made of.
        preprocessing: Preprocessing of its published weights.
        usual: Whether weights of its shapes are this one often enough to ask about it; else it is only named.
        lacks: What tmdeploy's ViT lacks of it; None for what it can build. Its config then only gives its shapes.
        official_names: Whether only weights with the names of official repositories (`gamma_1`) can be this one.
    """

    config: VitConfig
    preprocessing: Preprocessing
    usual: bool = True
    lacks: str | None = None
    official_names: bool = False


@functools.cache
def known_architectures() -> tuple[Architecture, ...]:
    """All known architectures, those that tmdeploy cannot build among them, in the order in which inference prefers."""
    return tuple(
        Architecture(
            VitConfig(**row.fields), Preprocessing(**row.preprocessing), row.usual, row.lacks, row.official_names
        )
        for row in rows()
    )


@functools.cache
def _registry() -> Mapping[str, Architecture]:
    return {entry.config.name: entry for entry in known_architectures() if entry.lacks is None}


def arch_names() -> tuple[str, ...]:
    """Names of all registered architectures, sorted."""
    return tuple(sorted(_registry()))


def architecture(name: str) -> Architecture:
    """Look a registered architecture up.

    Raises:
        UsageError: Unknown; the message names the closest known ones.
    """
    known = _registry()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not close:
        close = [*arch_names()[:3], "..."]
    raise UsageError(f"unknown architecture '{name}'", remedy=f"Did you mean: {', '.join(close)}")


def named_config(name: str, **overrides: Any) -> VitConfig:
    """A registered architecture's config.

    Args:
        name: Such as `deit_small_patch16_224`.
        overrides: Fields of VitConfig to change, such as `num_classes=10`.

    Raises:
        UsageError: Unknown name, or overrides that make no possible architecture.
    """
    return architecture(name).config.replace(**overrides)


def default_preprocessing(config: VitConfig) -> Preprocessing:
    """How images become this architecture's input, unless the checkpoint says otherwise.

    That of the registered architecture of the config's name; ImageNet's statistics, bicubic and crop 0.9 for any other.
    """
    entry = _registry().get(config.name)
    base = Preprocessing(crop_pct=0.9) if entry is None else entry.preprocessing
    return base.model_copy(update={"image_size": config.image_size})
