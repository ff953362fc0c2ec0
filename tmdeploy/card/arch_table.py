"""The published ViTs that `VitConfig` can describe, as data; and those that look like one of them. No torch in here.

Structure, normalisation and crop are timm 1.0's for the name's default weights, which tests compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_Triple = tuple[float, float, float]
_IMAGENET: tuple[_Triple, _Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF: tuple[_Triple, _Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # Google's ViT and AugReg: pixels in [-1, 1]
_CLIP: tuple[_Triple, _Triple] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
_UNIT: tuple[_Triple, _Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels in [0, 1] as they are

# width, depth, heads, hidden width of the MLP
_SIZES: Mapping[str, tuple[int, int, int, int]] = {
    "test": (64, 6, 2, 192),
    "tiny": (192, 12, 3, 768),
    "xsmall": (256, 10, 4, 1024),
    "wee": (256, 14, 4, 1280),
    "little": (320, 14, 5, 1792),
    "small": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "mediumd": (512, 20, 8, 2048),
    "betwixt": (640, 12, 10, 2560),
    "base": (768, 12, 12, 3072),
    "so150m2": (832, 21, 13, 2176),
    "plus": (896, 12, 14, 3584),
    "so150m": (896, 18, 14, 2304),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
    "giantopt": (1536, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
}


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        fields: Fields of `VitConfig`.
        preprocessing: Fields of `Preprocessing`.
        usual: Whether weights of these shapes are this one often enough to ask about it; else it is only named.
        lacks: What it computes with that `VitConfig` has no field for; None for what tmdeploy can build.
        official_names: Whether only the names that official repositories use (`gamma_1`) can mean it.
    """

    fields: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    usual: bool = True
    lacks: str | None = None
    official_names: bool = False


def rows() -> Iterator[Row]:
    """All of them. Of those with the same shapes, the first gives its name to what is inferred."""
    yield from _deit()
    yield from _vit()
    yield from _self_supervised()
    yield from _without_class_token()
    yield from _image_text()


def _row(
    name: str,
    size: str,
    patch: int,
    image: int,
    normalise: tuple[_Triple, _Triple],
    crop: float,
    *,
    preprocess: Mapping[str, Any] | None = None,
    usual: bool = True,
    lacks: str | None = None,
    official_names: bool = False,
    **fields: Any,
) -> Row:
    width, depth, heads, mlp_width = _SIZES[size]
    shape = {"width": width, "depth": depth, "heads": heads, "mlp_width": mlp_width}
    known = {"name": name, "image_size": (image, image), "patch_size": patch, **shape, **fields}
    mean, std = normalise
    prepared = {"image_size": (image, image), "mean": mean, "std": std, "crop_pct": crop, **(preprocess or {})}
    return Row(known, prepared, usual, lacks, official_names)


def _deit() -> Iterator[Row]:
    # DeiT: facebookresearch/deit
    for size, image in (("tiny", 224), ("small", 224), ("base", 224), ("base", 384)):
        crop = 0.9 if image == 224 else 1.0
        yield _row(f"deit_{size}_patch16_{image}", size, 16, image, _IMAGENET, crop)
        yield _row(f"deit_{size}_distilled_patch16_{image}", size, 16, image, _IMAGENET, crop, distilled=True)
    # DeiT III: LayerScale, position embedding on patch tokens only
    third: dict[str, Any] = {"layer_scale": True, "pos_embed_prefix": False}
    sizes = (("small", 224), ("small", 384), ("medium", 224), ("base", 224), ("base", 384))
    for size, image in (*sizes, ("large", 224), ("large", 384), ("huge", 224)):
        patch = 14 if size == "huge" else 16
        yield _row(
            f"deit3_{size}_patch{patch}_{image}", size, patch, image, _IMAGENET, 0.9 if image == 224 else 1.0, **third
        )
    # RoPE-ViT (naver-ai/rope-vit) was trained from DeiT III's recipe: its rotations are computed, not stored
    for size in ("small", "base", "large"):
        name, lacks = f"vit_{size}_patch16_rope_ape_224", "rotary position embeddings"
        yield _row(name, size, 16, 224, _IMAGENET, 0.9, lacks=lacks, official_names=True, **third)


def _vit() -> Iterator[Row]:
    # ViT, original and AugReg
    plain = [("tiny", 16, 224), ("tiny", 16, 384), ("small", 8, 224), ("base", 8, 224)]
    plain += [(size, patch, image) for size in ("small", "base", "large") for patch in (16, 32) for image in (224, 384)]
    plain += [("large", 14, 224), ("huge", 14, 224), ("giant", 14, 224), ("gigantic", 14, 224)]
    for size, patch, image in plain:
        # the one set of weights of ViT-S/8 is DINO's
        normalise = _IMAGENET if (size, patch) == ("small", 8) else _HALF
        yield _row(f"vit_{size}_patch{patch}_{image}", size, patch, image, normalise, 0.9 if image == 224 else 1.0)
    miil: dict[str, Any] = {"preprocess": {"interpolation": "bilinear"}, "qkv_bias": False}
    yield _row("vit_base_patch16_224_miil", "base", 16, 224, _UNIT, 0.875, **miil)
    yield _row("vit_small_patch16_36x1_224", "small", 16, 224, _HALF, 0.9, depth=36, layer_scale=True)
    for patch, image in ((32, 256), (16, 240)):
        yield _row(f"vit_base_patch{patch}_plus_{image}", "plus", patch, image, _HALF, 0.95, layer_scale=True)
    for size in ("small", "base", "large"):
        yield _row(f"flexivit_{size}", size, 16, 240, _HALF, 0.95, pos_embed_prefix=False)
    yield _row("test_vit", "test", 16, 160, _HALF, 0.95)


def _self_supervised() -> Iterator[Row]:
    # DINOv2, without a head unless one was trained on top; with registers, these too have no position
    bare: dict[str, Any] = {"layer_scale": True, "num_classes": 0}
    for size in ("small", "base", "large"):
        yield _row(f"vit_{size}_patch14_dinov2", size, 14, 518, _IMAGENET, 1.0, **bare)
        reg4: dict[str, Any] = {"registers": 4, "pos_embed_prefix": False, **bare}
        yield _row(f"vit_{size}_patch14_reg4_dinov2", size, 14, 518, _IMAGENET, 1.0, **reg4)
    # MAE, fine-tuned with mean pooling (facebookresearch/mae, models_vit.py); evaluated at 256 -> 224
    mean: dict[str, Any] = {"pool": "avg", "fc_norm": True}
    for size, patch in (("base", 16), ("large", 16), ("huge", 14)):
        yield _row(f"mae_vit_{size}_patch{patch}", size, patch, 224, _IMAGENET, 0.875, **mean)
    # EVA-CLIP distilled into a plain ViT
    for image, mode in ((196, "center"), (336, "squash")):
        yield _row(f"eva_large_patch14_{image}", "large", 14, image, _CLIP, 1.0, preprocess={"crop_mode": mode}, **mean)
    # MoCo v3's ViT-S has twelve heads of 32 (facebookresearch/moco-v3, vits.py); evaluated at 256 -> 224
    yield _row("mocov3_vit_small", "small", 16, 224, _IMAGENET, 0.875, heads=12, usual=False)
    # I-JEPA
    for size, patch, image in (("huge", 14, 224), ("huge", 16, 448), ("giant", 16, 224)):
        crop = 1.0 if image == 448 else 0.9
        jepa: dict[str, Any] = {"class_token": False, "pool": "avg", "num_classes": 0}
        yield _row(f"vit_{size}_patch{patch}_gap_{image}", size, patch, image, _IMAGENET, crop, **jepa)


def _without_class_token() -> Iterator[Row]:
    gap: dict[str, Any] = {"class_token": False, "pool": "avg"}
    # mean of the normalised patch tokens
    for size, image in (("medium", 240), ("medium", 256), ("medium", 384), ("betwixt", 256)):
        mode = {"crop_mode": "squash"} if image == 384 else {}
        scaled: dict[str, Any] = {"qkv_bias": False, "layer_scale": True, **gap}
        yield _row(f"vit_{size}_patch16_gap_{image}", size, 16, image, _HALF, 0.95, preprocess=mode, **scaled)
    # defined by timm, without published weights
    yield _row("vit_base_patch16_gap_224", "base", 16, 224, _HALF, 0.9, heads=16, usual=False, **gap)
    # blocks that normalise after attention and MLP
    post: dict[str, Any] = {"qkv_bias": False, "fc_norm": True, "norm_placement": "res_post", **gap}
    yield _row("vit_base_patch16_rpn_224", "base", 16, 224, _HALF, 0.9, **post)
    # with registers: mean, then norm
    named: dict[str, Any] = {"pos_embed_prefix": False, "layer_scale": True, "fc_norm": True, **gap}
    for size, count in (("wee", 1), ("little", 1), ("little", 4), ("medium", 1), ("medium", 4), ("mediumd", 4)):
        yield _row(f"vit_{size}_patch16_reg{count}_gap_256", size, 16, 256, _HALF, 0.95, registers=count, **named)
    yield _row("vit_mediumd_patch16_reg4_gap_384", "mediumd", 16, 384, _HALF, 1.0, registers=4, **named)
    for count, image in ((1, 256), (4, 256), (4, 384)):
        crop, name = (0.95 if image == 256 else 1.0), f"vit_betwixt_patch16_reg{count}_gap_{image}"
        yield _row(name, "betwixt", 16, image, _HALF, crop, registers=count, **named)
    bare = {**named, "layer_scale": False}
    yield _row("vit_base_patch16_reg4_gap_256", "base", 16, 256, _HALF, 0.9, registers=4, **bare)
    # shape-optimised, with positions for the registers too
    for image, crop in ((256, 0.95), (384, 1.0)):
        name = f"vit_so150m_patch16_reg4_gap_{image}"
        yield _row(name, "so150m", 16, image, _HALF, crop, registers=4, **gap)
    second: dict[str, Any] = {"qkv_bias": False, "layer_scale": True, "fc_norm": True, "registers": 1, **gap}
    for image in (256, 384, 448):
        mode = {"crop_mode": "squash"} if image == 448 else {}
        name = f"vit_so150m2_patch16_reg1_gap_{image}"
        yield _row(name, "so150m2", 16, image, _HALF, 1.0, preprocess=mode, **second)


def _image_text() -> Iterator[Row]:
    # image towers with a classifier, or without; CLIP's have a norm before block 0
    clip: dict[str, Any] = {"pre_norm": True, "patch_bias": False, "norm_eps": 1e-5}
    towers = [("base", 32, 224, 0.9), ("base", 32, 256, 1.0), ("base", 32, 384, 1.0), ("base", 32, 448, 1.0)]
    towers += [("base", 16, 224, 0.95), ("base", 16, 384, 1.0), ("large", 14, 224, 1.0), ("large", 14, 336, 1.0)]
    towers += [("huge", 14, 224, 1.0), ("huge", 14, 336, 1.0), ("huge", 14, 378, 1.0), ("giant", 14, 224, 1.0)]
    towers += [("gigantic", 14, 224, 1.0), ("gigantic", 14, 378, 1.0), ("xsmall", 16, 224, 0.9)]
    towers += [("medium", 32, 224, 0.9), ("medium", 16, 224, 0.9), ("betwixt", 32, 224, 0.9)]
    squashed = {("base", 16, 384), ("large", 14, 336), ("huge", 14, 336), ("gigantic", 14, 378)}
    for size, patch, image, crop in towers:
        mode = {"crop_mode": "squash"} if (size, patch, image) in squashed else {}
        normalise = _HALF if (size, patch) == ("large", 14) else _CLIP
        yield _row(
            f"vit_{size}_patch{patch}_clip_{image}", size, patch, image, normalise, crop, preprocess=mode, **clip
        )
    yield _row("vit_base_patch16_plus_clip_240", "plus", 16, 240, _CLIP, 1.0, **clip)
    # OpenAI's and MetaCLIP's
    quick = [("base", 32, 224), ("base", 16, 224), ("large", 14, 224), ("large", 14, 336)]
    for size, patch, image in (*quick, ("huge", 14, 224), ("huge", 14, 378), ("gigantic", 14, 224)):
        crop, name = (0.9 if patch == 32 else 1.0), f"vit_{size}_patch{patch}_clip_quickgelu_{image}"
        yield _row(name, size, patch, image, _CLIP, crop, act="quick_gelu", **clip)
    # SigLIP without its pooling head
    sig: dict[str, Any] = {"class_token": False, "pool": "avg", "num_classes": 0}
    for size, patch, image in (
        *(("base", 16, image) for image in (224, 256, 384, 512)),
        *(("large", 16, image) for image in (256, 384)),
        *(("so400m", 14, image) for image in (224, 378, 448, 896)),
    ):
        crop, name = (1.0 if image in {448, 896} else 0.9), f"vit_{size}_patch{patch}_siglip_gap_{image}"
        yield _row(name, size, patch, image, _HALF, crop, **sig)
    for size, patch, image in (
        ("base", 32, 256),
        ("large", 16, 512),
        *(("so400m", 16, image) for image in (256, 384, 512)),
        *(("giantopt", 16, image) for image in (256, 384)),
    ):
        yield _row(
            f"vit_{size}_patch{patch}_siglip_gap_{image}", size, patch, image, _HALF, 0.9, act="gelu_tanh", **sig
        )
    # TIPS v2
    tips: dict[str, Any] = {"layer_scale": True, "registers": 1, "pos_embed_prefix": False, "num_classes": 0}
    for size in ("base", "large", "so400m"):
        yield _row(f"vit_{size}_patch14_reg1_tipsv2", size, 14, 448, _UNIT, 1.0, **tips)
