"""`add_scales`: MSTM's multi-scale stem for a model that was trained without one."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.models.stem import PatchEmbed, fuse_scales
from tmdeploy.models.vit import VisionTransformer

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_STEM = "_tmdeploy_stem"


def add_scales(
    module: ModuleT,
    scales: Sequence[int],
    *,
    fusion: Literal["sum", "concat"] = "sum",
    resample: Literal["nearest", "bilinear"] = "bilinear",
) -> ModuleT:
    """Give a ViT patch embeddings of more scales, fused with its own (docs/methods.md, MSTM), in place.

    The model computes what it computed before until it is trained: summed embeddings start at zero, concatenated ones
    meet a linear layer that takes the model's own alone. The weights are the model's, by the names of tmdeploy's
    checkpoints: `ms_embed.0.proj.weight`, ..., `ms_fuse.weight`; trained ones load with `load_state_dict`.

        model = tmdeploy.add_scales(timm.create_model("deit_small_patch16_224", pretrained=True), [32])
        tmdeploy.patch(model, "mstm", keep=0.7)

    Args:
        module: Ours, or a timm ViT whose `patch_embed` returns [B, N, C]. Patched or not.
        scales: Patch sizes, pixels; each divides the image size.
        fusion: `sum`, or `concat` then a linear layer.
        resample: How a scale is brought to the patch grid.

    Returns:
        The same module.

    Raises:
        UsageError: No scale, or one that does not divide the image size.
        UnsupportedModel: It has such a stem already, or embeds patches in another way.
    """
    embed = getattr(module, "patch_embed", None)
    projection, size = getattr(embed, "proj", None), getattr(embed, "img_size", None)
    if not isinstance(embed, nn.Module) or not isinstance(projection, nn.Conv2d) or not isinstance(size, (tuple, list)):
        raise UnsupportedModel(
            f"{type(module).__name__} has no patch_embed with a convolution `proj` and an `img_size`",
            remedy="Give a timm-style ViT",
        )
    if hasattr(module, "ms_embed"):
        raise UnsupportedModel(f"{type(module).__name__} has a multi-scale stem already", remedy="Leave it as it is")
    height, width = size
    if not scales or any(scale < 1 or height % scale or width % scale for scale in scales):
        raise UsageError(
            f"scales {', '.join(map(str, scales)) or 'none'}: each is a patch size that divides {height} x {width}"
        )
    _check_tokens(module, embed)
    channels, out = projection.in_channels, projection.out_channels
    made = nn.ModuleList(PatchEmbed((height, width), scale, channels, out, bias=True) for scale in scales)
    linear = nn.Linear((1 + len(scales)) * out, out) if fusion == "concat" else None
    with torch.no_grad():
        if linear is None:
            for parameter in made.parameters():
                parameter.zero_()
        else:
            linear.weight.copy_(torch.eye(*linear.weight.shape))
            linear.bias.zero_()
    like = projection.weight
    if isinstance(module, VisionTransformer):
        module.config = module.config.replace(scales=tuple(scales), fusion=fusion, resample=resample)
    else:
        embed.resample = resample  # type: ignore[assignment]
        object.__setattr__(embed, _STEM, (module, embed.forward))
        embed.forward = types.MethodType(_fused_forward, embed)
    module.ms_embed = made.to(like.device, like.dtype)
    if linear is not None:
        module.ms_fuse = linear.to(like.device, like.dtype)
    return module


def _fused_forward(self: nn.Module, images: Tensor) -> Tensor:
    """Forward of a timm patch embedding with more scales; images [B, C, H, W] to tokens [B, N, D]."""
    module: nn.Module
    own: Callable[[Tensor], Tensor]
    module, own = self.__dict__[_STEM]
    tokens = own(images)
    across: tuple[int, int] = self.get_submodule("proj").kernel_size  # type: ignore[assignment]
    rows, columns = images.shape[-2] // across[0], images.shape[-1] // across[1]
    base = tokens.transpose(1, 2).reshape(images.shape[0], -1, rows, columns)
    maps = [base, *(scale(images) for scale in module.get_submodule("ms_embed").children())]
    linear = getattr(module, "ms_fuse", None)
    resample: Literal["nearest", "bilinear"] = self.resample  # type: ignore[assignment]
    return fuse_scales(maps, linear, resample)


def _check_tokens(module: nn.Module, embed: nn.Module) -> None:
    """Ours fuses maps itself; of others only a flat [B, N, C] is known."""
    if isinstance(module, VisionTransformer):
        return
    if getattr(module, "dynamic_img_size", False) or not getattr(embed, "flatten", True):
        raise UnsupportedModel(
            f"the patch_embed of {type(module).__name__} returns a map of tokens, not [batch, tokens, channels]",
            remedy="Create the model with dynamic_img_size=False",
        )
