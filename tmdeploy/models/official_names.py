"""Parameter names of official repositories, translated to timm's."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from torch import Tensor

# Parameters that inference does not use:
_IDLE = re.compile(
    r"^mask_token$"  # DINOv2, MAE: stands for masked patches in pre-training
    r"|(^|\.)out_zero_mask$"  # ATS: a constant zero
    r"|(^|\.)num_batches_tracked$"
)


def has_official_gammas(names: Container[str]) -> bool:
    """Whether LayerScale has its official names, `gamma_1` and `gamma_2`."""
    return "blocks.0.gamma_1" in names


def to_timm_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of official checkpoints, and drop what inference never uses.

    DeiT III has `gamma_1`, `gamma_2` for timm's `ls1.gamma`, `ls2.gamma`. DINOv2 has `register_tokens` for timm's
    `reg_token`, and a position embedding with an entry for the class token but none for registers: that entry is added
    to the class token, which computes the same.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if not _IDLE.search(name):
            named[re.sub(r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma", name)] = tensor
    if "register_tokens" in named and {"cls_token", "pos_embed"} <= named.keys():
        named["reg_token"] = named.pop("register_tokens")
        position = named["pos_embed"]
        if position.dim() == 3 and named["cls_token"].shape == position[:, :1].shape:
            named["cls_token"] = named["cls_token"] + position[:, :1]
            named["pos_embed"] = position[:, 1:]
    return named
