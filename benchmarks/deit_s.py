"""A DeiT-S/16-shaped checkpoint for benchmarks, where none can be downloaded.

Time and MACs do not depend on what the weights are; decisions do. Random weights make all tokens alike, so the qkv
weights are widened until attention and similarity are as uneven as a trained model's. It says nothing about accuracy.
"""

from __future__ import annotations

from pathlib import Path

_SHARPEN = 4.0  # of the qkv weights


def make_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write a plain state_dict with DeiT's names (`{"model": ...}`, 22 M parameters, float32) and return its path."""
    import torch

    from tmdeploy.card.arch import named_config
    from tmdeploy.models.vit import VisionTransformer

    torch.manual_seed(seed)
    model = VisionTransformer(named_config("deit_small_patch16_224"))
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(_SHARPEN)
    torch.save({"model": model.state_dict()}, path)
    return path
