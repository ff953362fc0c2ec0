"""Small checkpoints with seeded random weights, written without tmdeploy: the same each time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

Weights = dict[str, Tensor]


def write_checkpoints(folder: Path) -> None:
    """Plain state_dicts, and what real files wrap them in; a model of the user's own; a foreign ONNX file."""
    from safetensors.torch import save_file

    plain = weights()
    files: dict[str, Any] = {
        "plain": plain,
        "mean": weights(fc_norm=True),
        "bare": weights(class_token=False, fc_norm=True),
        "distilled": weights(distilled=True),
        "registers": weights(registers=4),
        "registers-free": weights(registers=4, positions_of_prefix=False),
        "layer-scale": weights(layer_scale=True),
        "scales": weights(scales=(16,)),
        "scales-concat": weights(scales=(16, 24), concat=True),
        "pre-norm": weights(pre_norm=True, patch_bias=False),
        "no-qkv-bias": weights(qkv_bias=False),
        "headless": weights(classes=0),
        "rectangle": weights(grid=(4, 9)),
        "grey": weights(channels=1),
        "deep": weights(depth=4),
        "half": {name: tensor.half() for name, tensor in plain.items()},
        "prefixed": {"state_dict": {f"module.{name}": tensor for name, tensor in plain.items()}, "epoch": 3},
        "averaged": {"model": weights(seed=1), "model_ema": plain},
        "extra": {**plain, "decoder.weight": torch.ones(2, 2)},
        "own": {**_description(), "state_dict": weights(class_token=False, fc_norm=True)},
    }
    for name, held in files.items():
        torch.save(held, folder / f"{name}.pt")
    save_file(plain, folder / "safe.safetensors")
    shutil.copy(Path(__file__).with_name("owner.py"), folder)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "foreign", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "foreign.onnx")


def weights(
    *,
    seed: int = 0,
    width: int = 48,
    depth: int = 2,
    patch: int = 8,
    grid: tuple[int, int] = (6, 6),
    channels: int = 3,
    classes: int = 10,
    class_token: bool = True,
    distilled: bool = False,
    registers: int = 0,
    positions_of_prefix: bool = True,
    layer_scale: bool = False,
    pre_norm: bool = False,
    fc_norm: bool = False,
    qkv_bias: bool = True,
    patch_bias: bool = True,
    scales: Sequence[int] = (),
    concat: bool = False,
) -> Weights:
    """A ViT's weights by timm's names, large enough that attention is not uniform."""
    generator = torch.Generator().manual_seed(seed)
    made: Weights = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        made[name] = torch.randn(shape, generator=generator) * 0.15 + around

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        add(f"{name}.weight", outputs, inputs)
        if bias:
            add(f"{name}.bias", outputs)

    def norm(name: str) -> None:
        add(f"{name}.weight", width, around=1.0)
        add(f"{name}.bias", width)

    tokens = {"cls_token": int(class_token), "dist_token": int(distilled), "reg_token": registers}
    for name, count in tokens.items():
        if count:
            add(name, 1, count, width)
    prefix = sum(tokens.values()) if positions_of_prefix else 0
    add("pos_embed", 1, prefix + grid[0] * grid[1], width)
    for name, side in (("patch_embed", patch), *((f"ms_embed.{number}", side) for number, side in enumerate(scales))):
        add(f"{name}.proj.weight", width, channels, side, side)
        if patch_bias:
            add(f"{name}.proj.bias", width)
    if concat:
        linear("ms_fuse", width, width * (1 + len(scales)))
    if pre_norm:
        norm("norm_pre")
    for block in (f"blocks.{number}" for number in range(depth)):
        norm(f"{block}.norm1")
        linear(f"{block}.attn.qkv", 3 * width, width, bias=qkv_bias)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2")
        linear(f"{block}.mlp.fc1", 2 * width, width)
        linear(f"{block}.mlp.fc2", width, 2 * width)
        if layer_scale:
            add(f"{block}.ls1.gamma", width, around=0.5)
            add(f"{block}.ls2.gamma", width, around=0.5)
    norm("fc_norm" if fc_norm else "norm")
    for name in ("head", *(["head_dist"] if distilled else [])):
        if classes:
            linear(name, classes, width)
    return made


def _description() -> dict[str, Any]:
    """Version 1 of what tmdeploy's own checkpoints say of themselves."""
    architecture = {
        "name": "vit", "image_size": [48, 48], "patch_size": 8, "width": 48, "depth": 2, "heads": 3, "mlp_width": 96,
        "num_classes": 10, "in_channels": 3, "class_token": False, "pool": "avg", "fc_norm": True, "act": "quick_gelu",
    }  # fmt: skip
    options = {"score": "key_norm", "metric": "keys", "weight": "exp_sim", "prop_attn": True, "pool": "mean"}
    config = {
        "architecture": architecture,
        "recipe": {"method": "mstm", "options": options, "layers": [0, 1], "amounts": [24, 11]},
        "preprocessing": {"image_size": [48, 48], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 1.0},
        "class_names": list("abcdefghij"),
    }
    return {"format": "tmdeploy", "version": 1, "config": config}
