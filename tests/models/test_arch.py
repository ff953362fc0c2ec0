import subprocess
import sys

import pytest
import torch

from tmdeploy.errors import UsageError
from tmdeploy.models.arch import VitConfig, arch_names, architecture, default_preprocessing, named_config
from tmdeploy.models.vit import VisionTransformer

IN_TIMM = [name for name in arch_names() if not name.startswith("mae_")]


@pytest.mark.parametrize("name", IN_TIMM)
def test_a_named_architecture_is_timms(timm, name):
    config = named_config(name)
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=config.num_classes)
        ours = VisionTransformer(config)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == expected
    assert ours.blocks[0].attn.num_heads == theirs.blocks[0].attn.num_heads
    assert ours.blocks[0].norm1.eps == theirs.blocks[0].norm1.eps
    assert ours.global_pool == theirs.global_pool
    assert ours.num_prefix_tokens == theirs.num_prefix_tokens
    defaults = timm.get_pretrained_cfg(name)
    preprocessing = architecture(name).preprocessing
    assert (preprocessing.mean, preprocessing.std) == (defaults.mean, defaults.std)
    assert preprocessing.interpolation == defaults.interpolation
    assert preprocessing.crop_pct == defaults.crop_pct
    assert preprocessing.image_size == defaults.input_size[1:] == config.image_size


def test_mae_models_pool_the_mean_before_their_norm():
    config = named_config("mae_vit_base_patch16")
    assert (config.pool, config.fc_norm, config.class_token) == ("avg", True, True)
    # MAE evaluates at 224 after resizing to 256
    assert architecture("mae_vit_base_patch16").preprocessing.crop_pct == 224 / 256


def test_overrides_keep_the_rest():
    config = named_config("deit_tiny_patch16_224", num_classes=10)
    assert (config.num_classes, config.width, config.name) == (10, 192, "deit_tiny_patch16_224")


def test_an_unknown_name_gets_close_ones():
    with pytest.raises(UsageError, match=r"unknown architecture 'deit_small_patch16'.*deit_small_patch16_224"):
        named_config("deit_small_patch16")


def test_a_name_that_resembles_none_still_gets_some():
    with pytest.raises(UsageError, match="Did you mean: deit3_base_patch16_224"):
        named_config("zzz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (225, 224)}, "not a multiple of the patch size 16"),
        ({"scales": (48,)}, "not a multiple of the patch size 48"),
        ({"heads": 5}, "not a multiple of 5 attention heads"),
        ({"depth": 0}, "not positive"),
        ({"class_token": False}, "need a class token"),
        ({"distilled": True, "pool": "avg"}, "distilled"),
        ({"pool": "map"}, "pool"),
        ({"act": "swish"}, "act: .*'gelu_tanh'"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm_placement": "res_post", "layer_scale": True}, "no LayerScale beside it"),
    ],
)
def test_impossible_overrides_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        named_config("deit_tiny_patch16_224", **changes)


def test_counts_follow_from_the_fields():
    config = named_config("vit_small_patch14_reg4_dinov2")
    assert (config.grid, config.num_prefix, config.tokens) == ((37, 37), 5, 37 * 37 + 5)


def test_preprocessing_follows_the_name_and_the_image_size():
    augreg = default_preprocessing(named_config("vit_base_patch16_224", image_size=(384, 384)))
    assert (augreg.mean, augreg.image_size) == ((0.5, 0.5, 0.5), (384, 384))
    unnamed = default_preprocessing(VitConfig(name="vit"))
    assert (unnamed.mean[0], unnamed.crop_pct, unnamed.interpolation) == (0.485, 0.9, "bicubic")


def test_architectures_need_no_torch():
    code = (
        "import sys, tmdeploy.models.infer_arch, tmdeploy.models.arch as a; a.arch_names(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
