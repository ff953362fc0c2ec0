"""Checkpoints whose names and shapes fit and whose models compute something else: none may pass in silence.

Small models built by timm with the structure of the real ones; docs/proof.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tmdeploy
from tests.models.weights import randomise
from tmdeploy.card.card import ProofRecord
from tmdeploy.errors import CheckpointError, ExportError
from tmdeploy.export.against import prove
from tmdeploy.models.checkpoint import LoadedCheckpoint, build_model, load_checkpoint
from tmdeploy.models.infer_arch import infer

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 5}
Maker = Callable[[ModuleType], nn.Module]


def _vit(**changes: Any) -> Maker:
    return lambda timm: timm.models.vision_transformer.VisionTransformer(**{**SMALL, **changes})


def _named(name: str, **changes: Any) -> Maker:
    return lambda timm: timm.create_model(name, **{**SMALL, **changes})


def _post_norm(timm: ModuleType) -> nn.Module:
    block = timm.models.vision_transformer.ResPostBlock
    return _vit(block_fn=block, class_token=False, global_pool="avg", qkv_bias=False)(timm)


def _with_layers(**layers: str) -> Maker:
    """Layer classes by name, from timm.layers."""
    return lambda timm: _vit(**{key: getattr(timm.layers, name) for key, name in layers.items()})(timm)


def _clip(timm: ModuleType) -> nn.Module:
    norm = partial(nn.LayerNorm, eps=1e-5)
    return _vit(act_layer=timm.layers.QuickGELU, pre_norm=True, norm_layer=norm)(timm)


def _epsilon(timm: ModuleType) -> nn.Module:
    return _vit(norm_layer=partial(nn.LayerNorm, eps=1e-5))(timm)


def _scaled(timm: ModuleType) -> nn.Module:
    model = _vit()(timm)
    for block in model.blocks:
        block.attn.scale, block.attn.fused_attn = 128**-0.5, False  # by the width, not by the head's
    return model


def _things(timm: ModuleType) -> nn.Module:
    return _vit(block_fn=timm.models.vision_transformer.ParallelThingsBlock)(timm)


def _differential(timm: ModuleType) -> nn.Module:
    return _vit(attn_layer=timm.layers.DiffAttention)(timm)


def _other_statistics(timm: ModuleType) -> nn.Module:
    model = _vit()(timm)
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return model


@dataclass(frozen=True)
class LookAlike:
    """One checkpoint.

    Attributes:
        make: Its owner's model.
        refused: What loading it says, where it is refused.
        right: Whether it is read right as it is.
        found: What --against says it is, or says besides.
        assume: What makes it right.
    """

    make: Maker
    refused: str = ""
    right: bool = False
    found: str = ""
    assume: tuple[str, ...] = ()


NO_OTHER = "No other act, norm_eps, norm_placement, pool, heads gives its outputs"
LOOK_ALIKES = {
    "post-norm blocks": LookAlike(_post_norm, assume=("norm_placement=res_post",)),
    "CLIP with quick GELU": LookAlike(_clip, assume=("act=quick_gelu",)),
    "mean pooling with fc_norm=False": LookAlike(_vit(global_pool="avg", fc_norm=False), assume=("pool=avg",)),
    "other attention heads": LookAlike(_vit(num_heads=4), assume=("heads=4",)),
    "other mean and std": LookAlike(
        _other_statistics, found="it states mean 0.5,0.5,0.5 of its input", assume=("mean=0.5", "std=0.5")
    ),
    "epsilon 1e-5": LookAlike(_epsilon, assume=("norm_eps=1e-05",)),
    "tanh GELU": LookAlike(_with_layers(act_layer="GELUTanh"), assume=("act=gelu_tanh",)),
    "ReLU": LookAlike(_vit(act_layer=nn.ReLU), assume=("act=relu",)),
    "quick GELU and other heads": LookAlike(
        lambda timm: _vit(act_layer=timm.layers.QuickGELU, num_heads=4)(timm), assume=("act=quick_gelu", "heads=4")
    ),
    "maximum pooling": LookAlike(_vit(global_pool="max", fc_norm=False), found=NO_OTHER),
    "mean over the class token too": LookAlike(
        _vit(global_pool="avg", fc_norm=False, pool_include_prefix=True), found=NO_OTHER
    ),
    "attention scaled otherwise": LookAlike(_scaled, found=NO_OTHER),
    "rotary and learnt positions": LookAlike(_named("vit_small_patch16_rope_ape_224"), found=NO_OTHER),
    "normalised queries and keys": LookAlike(_vit(qk_norm=True), refused="normalised queries and keys"),
    "gated MLP": LookAlike(_with_layers(mlp_layer="GluMlp"), refused="gated MLP"),
    "attention pooling": LookAlike(_vit(global_pool="map"), refused="attention pooling"),
    "parallel blocks": LookAlike(_things, refused="parallel branches"),
    "differential attention": LookAlike(_differential, refused="differential attention"),
    "distilled": LookAlike(
        lambda timm: timm.models.deit.VisionTransformerDistilled(**SMALL),
        right=True,
    ),
    "no position for the class token": LookAlike(_vit(no_embed_class=True, init_values=0.1), right=True),
    "pre-norm, mean then norm": LookAlike(_vit(global_pool="avg"), right=True),
}


def _owner(name: str, timm: ModuleType) -> nn.Module:
    model = LOOK_ALIKES[name].make(timm).eval()
    randomise(model, seed=3)
    return model


def _prove(loaded: LoadedCheckpoint, owner: nn.Module) -> ProofRecord:
    return prove(owner, tmdeploy.patch(build_model(loaded), "tome", r=2), loaded)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_none_is_silently_wrong(name: str, timm: ModuleType, tmp_path: Path):
    case, owner = LOOK_ALIKES[name], _owner(name, timm)
    path = tmp_path / "plain.pth"
    torch.save(owner.state_dict(), path)
    if case.refused:
        with pytest.raises(CheckpointError, match=case.refused):
            build_model(load_checkpoint(path))
        return
    loaded = load_checkpoint(path)
    # loud: what was assumed, and how to prove it
    (told,) = [note for note in loaded.notes if note.startswith("assumed, since the weights do not show it: ")]
    assert "Prove it with export --against" in told
    if case.right:
        proof = _prove(loaded, owner)
        assert proof.error <= proof.limit
        return
    keys = [assumption.partition("=")[0] for assumption in case.assume]
    assert all(f"{key} " in told for key in keys)
    found = case.found or " ".join(f"--assume {assumption}" for assumption in case.assume)
    with pytest.raises(ExportError) as caught:
        _prove(loaded, owner)
    assert found in str(caught.value)
    if case.assume:
        proof = _prove(load_checkpoint(path, assume=case.assume), owner)
        assert proof.error <= proof.limit


def test_the_wrong_ones_are_wrong(timm: ModuleType, tmp_path: Path):
    """Without --against each of them exports, and its outputs are others than its owner's model's."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, case in LOOK_ALIKES.items():
        if case.refused or name == "other mean and std":
            continue
        owner = _owner(name, timm)
        torch.save(owner.state_dict(), tmp_path / "plain.pth")
        with torch.no_grad():
            ours = build_model(load_checkpoint(tmp_path / "plain.pth"))(images)
            difference = float((ours - owner(images)).abs().max())
        assert (difference < 1e-5) == case.right, (name, difference)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("vit_base_patch16_rpn_224", "norm_placement res_post"),
        ("vit_base_patch32_clip_quickgelu_224", "Say which one it is: .*--arch vit_base_patch32_clip_quickgelu_224"),
        ("deit_small_patch16_224", r"mocov3_vit_small \(heads 12.*vit_small_patch16_224 \(mean 0\.5"),
    ],
)
def test_real_ones_are_recognised_asked_about_or_named(name: str, outcome: str, timm: ModuleType):
    """Names and shapes of the published models; their weights take no part."""
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in timm.create_model(name).state_dict().items()}
    if outcome.startswith("Say"):
        with pytest.raises(CheckpointError, match=outcome):
            infer(shapes)
        return
    assert re.search(outcome, " ".join(infer(shapes).notes))


def test_deit_at_another_size_names_the_statistics_it_may_have(timm: ModuleType):
    """The shapes are those of a ViT-S at 384 px, whose pixels are in [-1, 1]."""
    with torch.device("meta"):
        model = timm.create_model("deit_small_patch16_224", img_size=384)
    inferred = infer({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    assert np.allclose(inferred.preprocessing.mean, 0.5)
    assert "deit_small_patch16_224 (mean 0.485,0.456,0.406" in " ".join(inferred.notes)
