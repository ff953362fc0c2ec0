"""Architectures: what a ViT is made of, by name or from a checkpoint's shapes. No torch in here."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tmdeploy.errors import UsageError
from tmdeploy.metadata import Preprocessing, first_problem

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
    patch_bias: bool = True
    layer_scale: bool = False
    pre_norm: bool = False
    fc_norm: bool = False
    norm_eps: float = Field(default=1e-6, gt=0.0, lt=1.0)
    act: Activation = "gelu"
    norm_placement: Literal["pre", "res_post"] = "pre"
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
    """A registered architecture: its config, and how images become its input."""

    config: VitConfig
    preprocessing: Preprocessing


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # Google's ViT and AugReg: pixels in [-1, 1]
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# width, depth; heads are width / 64 and the MLP is 4 widths unless a row says otherwise
_SIZES: Mapping[str, tuple[int, int]] = {
    "tiny": (192, 12),
    "small": (384, 12),
    "medium": (512, 12),
    "base": (768, 12),
    "large": (1024, 24),
    "huge": (1280, 32),
}


def _entry(
    name: str,
    size: str,
    patch: int,
    image: int,
    *,
    normalise: tuple[tuple[float, float, float], tuple[float, float, float]],
    crop_pct: float,
    **fields: Any,
) -> Architecture:
    width, depth = _SIZES[size]
    # every published ViT-H has 16 heads of 80
    base: dict[str, Any] = {"heads": 16 if size == "huge" else width // 64, "mlp_width": 4 * width}
    config = VitConfig(
        **{
            **base,
            "name": name,
            "image_size": (image, image),
            "patch_size": patch,
            "width": width,
            "depth": depth,
            **fields,
        }
    )
    mean, std = normalise
    return Architecture(config, Preprocessing(image_size=(image, image), mean=mean, std=std, crop_pct=crop_pct))


@functools.cache
def _registry() -> Mapping[str, Architecture]:
    """All named architectures. Where two have the same shapes, the first gives its name to what is inferred.

    Structure, normalisation and crop are timm 1.0's for the name's default weights, which tests compare.
    """
    found: list[Architecture] = []

    def add(name: str, size: str, patch: int, image: int, **fields: Any) -> None:
        found.append(_entry(name, size, patch, image, **fields))

    # DeiT: facebookresearch/deit
    for size, image in (("tiny", 224), ("small", 224), ("base", 224), ("base", 384)):
        crop = 0.9 if image == 224 else 1.0
        common: dict[str, Any] = {"normalise": _IMAGENET, "crop_pct": crop}
        add(f"deit_{size}_patch16_{image}", size, 16, image, **common)
        add(f"deit_{size}_distilled_patch16_{image}", size, 16, image, distilled=True, **common)
    # DeiT III: LayerScale, position embedding on patch tokens only
    sizes = (("small", 224), ("small", 384), ("medium", 224), ("base", 224), ("base", 384))
    for size, image in (*sizes, ("large", 224), ("large", 384), ("huge", 224)):
        patch = 14 if size == "huge" else 16
        crop = 0.9 if image == 224 else 1.0
        third: dict[str, Any] = {"layer_scale": True, "pos_embed_prefix": False}
        add(f"deit3_{size}_patch{patch}_{image}", size, patch, image, normalise=_IMAGENET, crop_pct=crop, **third)
    # ViT, original and AugReg
    plain = [("tiny", 16, 224), ("tiny", 16, 384), ("small", 8, 224), ("base", 8, 224)]
    plain += [(size, patch, image) for size in ("small", "base", "large") for patch in (16, 32) for image in (224, 384)]
    plain += [("large", 14, 224), ("huge", 14, 224)]
    for size, patch, image in plain:
        crop = 0.9 if image == 224 else 1.0
        # the one set of weights of ViT-S/8 is DINO's
        normalise = _IMAGENET if (size, patch) == ("small", 8) else _HALF
        add(f"vit_{size}_patch{patch}_{image}", size, patch, image, normalise=normalise, crop_pct=crop)
    # DINOv2, without a head unless one was trained on top; with registers, these too have no position
    for size in ("small", "base", "large"):
        dino: dict[str, Any] = {"normalise": _IMAGENET, "crop_pct": 1.0, "layer_scale": True, "num_classes": 0}
        add(f"vit_{size}_patch14_dinov2", size, 14, 518, **dino)
        add(f"vit_{size}_patch14_reg4_dinov2", size, 14, 518, registers=4, pos_embed_prefix=False, **dino)
    # MAE, fine-tuned with mean pooling (facebookresearch/mae, models_vit.py); evaluated at 256 -> 224
    for size, patch in (("base", 16), ("large", 16), ("huge", 14)):
        mean: dict[str, Any] = {"normalise": _IMAGENET, "crop_pct": 0.875, "pool": "avg", "fc_norm": True}
        add(f"mae_vit_{size}_patch{patch}", size, patch, 224, **mean)
    # without a class token: mean of the normalised patch tokens
    gap: dict[str, Any] = {"normalise": _HALF, "class_token": False, "pool": "avg"}
    for image, crop in ((240, 0.95), (256, 0.95), (384, 0.95)):
        bare: dict[str, Any] = {"qkv_bias": False, "layer_scale": True, "crop_pct": crop}
        add(f"vit_medium_patch16_gap_{image}", "medium", 16, image, **gap, **bare)
    registers: dict[str, Any] = {"layer_scale": True, "fc_norm": True, "pos_embed_prefix": False, "crop_pct": 0.95}
    for count in (1, 4):
        add(f"vit_medium_patch16_reg{count}_gap_256", "medium", 16, 256, registers=count, **gap, **registers)
    # CLIP's image tower with a classifier
    for patch, crop in ((32, 0.9), (16, 0.95)):
        clip: dict[str, Any] = {"normalise": _CLIP, "pre_norm": True, "patch_bias": False, "norm_eps": 1e-5}
        add(f"vit_base_patch{patch}_clip_224", "base", patch, 224, crop_pct=crop, **clip)
    return {entry.config.name: entry for entry in found}


def architectures() -> tuple[Architecture, ...]:
    """All registered architectures, in the order in which inference prefers them."""
    return tuple(_registry().values())


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
