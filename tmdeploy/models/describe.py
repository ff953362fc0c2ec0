"""The VitConfig of a module that is not ours: read from its parts, believed once our model computes the same."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.facts import ModelFacts
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import UsageError
from tmdeploy.models.vit import VisionTransformer

# Where a patched module keeps its state; `amounts` are its steps, `parts` what the method added.
REDUCTION = "_tmdeploy_reduction"
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "ReLU": "relu", "SiLU": "silu"}
_CLOSE = 1e-4  # of the largest output


def describe(module: nn.Module) -> VitConfig | None:
    """What a timm-style ViT is made of, if that is a ViT of this family.

    Args:
        module: Patched or not, with its weights.

    Returns:
        The config with which our VisionTransformer, given the module's weights, computes what the module computes
        unmerged on a random image; None where there is none.
    """
    if isinstance(module, VisionTransformer) and _untouched(module):
        return module.config
    if next(module.parameters()).dtype not in {torch.float32, torch.float64}:
        module = copy.deepcopy(module).float()  # half precision would hide a small difference
    try:
        config = module.config if isinstance(module, VisionTransformer) else VitConfig.model_validate(_read(module))
        with torch.device("meta"):
            ours = VisionTransformer(config)
        ours.load_state_dict(own_weights(module), strict=True, assign=True)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, UsageError):
        return None
    return config if _same(ours.eval(), module, config) else None


def own_weights(module: nn.Module) -> dict[str, Tensor]:
    """The state_dict without the parts that a patch added."""
    parts = tuple(f"{name}." for name in getattr(module.__dict__.get(REDUCTION), "parts", ()))
    return {name: weight for name, weight in module.state_dict().items() if not name.startswith(parts)}


def stated_preprocessing(module: nn.Module, config: VitConfig | ModelFacts) -> Preprocessing | None:
    """What a timm module says of its input (`pretrained_cfg`), where all of it can be followed; None otherwise."""
    card = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(card, Mapping):
        return None
    said = {name: card.get(name) for name in ("mean", "std", "crop_pct", "interpolation")}
    try:
        mode = card.get("crop_mode", "center")  # timm also has `border`, which pads
        return Preprocessing.model_validate({**said, "crop_mode": mode, "image_size": config.image_size})
    except ValidationError:
        return None


@contextlib.contextmanager
def unmerged(module: nn.Module) -> Iterator[None]:
    """A patched module without its reduction steps, in eval mode; as before afterwards. Any other: in eval mode."""
    state = module.__dict__.get(REDUCTION)
    amounts = getattr(state, "amounts", None)
    modes = [(part, part.training) for part in module.modules()]
    try:
        if state is not None:
            state.amounts = {}
        for part, _ in modes:
            part.training = False
        yield
    finally:
        if state is not None:
            state.amounts = amounts
        for part, mode in modes:
            part.training = mode


def _untouched(module: VisionTransformer) -> bool:
    """Whether it is what its config says, part by part, and runs our code, or the patch's."""
    with torch.device("meta"):
        fresh = VisionTransformer(module.config)
    overridden = any("forward" in part.__dict__ and REDUCTION not in part.__dict__ for part in module.modules())
    return repr(module) == repr(fresh) and not overridden


def _read(module: Any) -> dict[str, Any]:
    """VitConfig's fields as timm's VisionTransformer has them; raises where it has not."""
    embed, block = module.patch_embed, module.blocks[0]
    registers = 0 if getattr(module, "reg_token", None) is None else module.reg_token.shape[1]
    class_token = module.cls_token is not None
    distilled = getattr(module, "dist_token", None) is not None
    prefix = int(class_token) + int(distilled) + registers
    act = block.mlp.act
    kind = type(act).__name__
    if kind == "GELU" and getattr(act, "approximate", "none") == "tanh":
        kind = "GELUTanh"
    # a difference too small to be seen on one image
    (epsilon,) = {part.eps for part in module.modules() if hasattr(part, "eps")}
    name = (getattr(module, "pretrained_cfg", None) or {}).get("architecture")
    scales = [scale.proj.kernel_size[0] for scale in getattr(module, "ms_embed", ())]
    return {
        "name": name or type(module).__name__,
        "image_size": tuple(embed.img_size),
        "patch_size": embed.proj.kernel_size[0],
        "width": module.embed_dim,
        "depth": len(module.blocks),
        "heads": block.attn.num_heads,
        "mlp_width": block.mlp.fc1.out_features,
        "num_classes": module.head.out_features if isinstance(module.head, nn.Linear) else 0,
        "in_channels": embed.proj.in_channels,
        "class_token": class_token,
        "distilled": distilled,
        "registers": registers,
        "pool": module.global_pool,
        "pos_embed_prefix": module.pos_embed.shape[1] == prefix + embed.num_patches,
        "qkv_bias": block.attn.qkv.bias is not None,
        "patch_bias": embed.proj.bias is not None,
        "layer_scale": hasattr(block, "ls1") and not isinstance(block.ls1, nn.Identity),
        "pre_norm": not isinstance(getattr(module, "norm_pre", None) or nn.Identity(), nn.Identity),
        "fc_norm": not isinstance(getattr(module, "fc_norm", None) or nn.Identity(), nn.Identity),
        "norm_eps": epsilon,
        "act": _ACTIVATIONS[kind],
        "norm_placement": "res_post" if type(block).__name__ == "ResPostBlock" else "pre",
        "scales": scales,
        "fusion": "concat" if hasattr(module, "ms_fuse") else "sum",
        "resample": getattr(embed, "resample", "bilinear"),
    }


def _same(ours: nn.Module, module: nn.Module, config: VitConfig) -> bool:
    weight = next(module.parameters())
    images = torch.randn(2, config.in_channels, *config.image_size, generator=torch.Generator().manual_seed(0))
    images = images.to(weight.device, weight.dtype)
    try:
        with torch.no_grad(), unmerged(module):
            a, b = ours(images), module(images)
    except Exception:  # whatever a module that is not of this family does with an image
        return False
    return a.shape == b.shape and bool((a - b).abs().max() <= _CLOSE * b.abs().max())
