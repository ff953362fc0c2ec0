import subprocess
import sys

import pytest
import torch

from tests.models.weights import randomise
from tmdeploy.card.arch import VitConfig, arch_names, architecture, default_preprocessing, named_config
from tmdeploy.errors import UsageError
from tmdeploy.models.vit import VisionTransformer

IN_TIMM = [name for name in arch_names() if not name.startswith(("mae_", "mocov3_"))]
# One of each kind that computes something else; those of the widest are left to their shapes.
KINDS = (
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "flexivit_small",
    "test_vit",
    "vit_base_patch16_224_miil",
    "vit_base_patch16_gap_224",
    "vit_base_patch16_rpn_224",
    "vit_base_patch32_clip_224",
    "vit_base_patch32_clip_quickgelu_224",
    "vit_base_patch32_siglip_gap_256",
    "vit_medium_patch16_gap_256",
    "vit_small_patch14_reg4_dinov2",
    "vit_so150m_patch16_reg4_gap_256",
    "vit_so150m2_patch16_reg1_gap_256",
    "vit_wee_patch16_reg1_gap_256",
)


def timms_arguments(timm, monkeypatch, name):
    with monkeypatch.context() as context:
        for module in (timm.models.vision_transformer, timm.models.deit):
            context.setattr(module, "build_model_with_cfg", lambda *_, **arguments: arguments)
        return timm.models.model_entrypoint(name)()


@pytest.mark.parametrize("name", IN_TIMM)
def test_a_named_architecture_is_timms(timm, name, monkeypatch):
    config = named_config(name)
    assert timms_arguments(timm, monkeypatch, name).get("depth", 12) == config.depth
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=config.num_classes, depth=1)
        ours = VisionTransformer(config.replace(depth=1))
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
    assert (preprocessing.crop_pct, preprocessing.crop_mode) == (defaults.crop_pct, defaults.crop_mode)
    assert preprocessing.image_size == defaults.input_size[1:] == config.image_size


@pytest.mark.parametrize("name", KINDS)
def test_a_named_architecture_computes_what_timms_does(timm, name):
    patch = named_config(name).patch_size
    config = named_config(name, depth=1, num_classes=3, image_size=(2 * patch, 2 * patch))
    theirs = timm.create_model(name, depth=1, num_classes=3, img_size=2 * patch).eval()
    randomise(theirs)
    ours = VisionTransformer(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 2 * patch, 2 * patch, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        got, expected = ours(images), theirs(images)
    assert got.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_every_plain_vit_of_timm_is_known_or_told_apart(timm):
    # a newer timm with other models fails here: look at what they compute, and add them to arch_table.py
    apart = ("aimv2_", "beit3_", "test_", "samvit_")
    parts = ("radio", "intern300m", "siglip_2", "siglip_3", "siglip_5", "_xp_", "x2_", "_map_", "_pwee_", "_dpwee_")
    parts += ("_dwee_", "_dlittle_", "giant_patch14_dinov2", "giant_patch14_reg", "siglip_gap_384")
    unknown = [
        name
        for name in timm.list_models(module="vision_transformer")
        if name not in arch_names() and not name.startswith(apart) and not any(part in name for part in parts)
    ]
    assert unknown == []


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
        "import sys, tmdeploy.models.infer_arch, tmdeploy.card.arch as a; a.arch_names(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
