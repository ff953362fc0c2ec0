import functools
import io

import pytest
import torch

from tests.models.weights import SMALL, randomise, small_model
from tmdeploy.errors import UsageError
from tmdeploy.models.vit import VisionTransformer

COMMON = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 5}
BASE = SMALL.replace(heads=4, mlp_width=256)

# ours, timm's arguments, timm's class
VARIANTS = {
    "plain": ({}, {}, "VisionTransformer"),
    "distilled": ({"distilled": True}, {}, "VisionTransformerDistilled"),
    "registers": ({"registers": 3}, {"reg_tokens": 3}, "VisionTransformer"),
    "registers-without-position": (
        {"registers": 4, "pos_embed_prefix": False},
        {"reg_tokens": 4, "no_embed_class": True},
        "VisionTransformer",
    ),
    "layer-scale": ({"layer_scale": True, "pos_embed_prefix": False}, {"init_values": 0.1, "no_embed_class": True}, ""),
    "mean-of-normalised": ({"pool": "avg"}, {"global_pool": "avg", "fc_norm": False}, ""),
    "mean-then-norm": ({"pool": "avg", "fc_norm": True}, {"global_pool": "avg"}, ""),
    "no-class-token": (
        {"pool": "avg", "class_token": False, "registers": 1, "pos_embed_prefix": False},
        {"global_pool": "avg", "class_token": False, "reg_tokens": 1, "no_embed_class": True, "fc_norm": False},
        "",
    ),
    "mlp": ({"mlp_width": 96}, {"mlp_ratio": 1.5}, ""),
    "no-qkv-bias": ({"qkv_bias": False}, {"qkv_bias": False}, ""),
    "pre-norm": ({"pre_norm": True, "patch_bias": False}, {"pre_norm": True}, ""),
    "grey-and-oblong": ({"in_channels": 1, "image_size": (32, 48)}, {"in_chans": 1, "img_size": (32, 48)}, ""),
    "tanh-gelu": ({"act": "gelu_tanh"}, {"act_layer": "gelu_tanh"}, ""),
    "quick-gelu": ({"act": "quick_gelu"}, {"act_layer": "quick_gelu"}, ""),
    "relu": ({"act": "relu"}, {"act_layer": "relu"}, ""),
    "silu": ({"act": "silu"}, {"act_layer": "silu"}, ""),
    "norm-after": ({"norm_placement": "res_post"}, {"block_fn": "ResPostBlock"}, ""),
    "large-epsilon": ({"norm_eps": 1e-2}, {"norm_layer": functools.partial(torch.nn.LayerNorm, eps=1e-2)}, ""),
    "no-head": ({"num_classes": 0}, {"num_classes": 0}, ""),
    "distilled-no-head": ({"distilled": True, "num_classes": 0}, {"num_classes": 0}, "VisionTransformerDistilled"),
}


def pair(timm, variant):
    changes, arguments, kind = VARIANTS[variant]
    module = timm.models.deit if kind == "VisionTransformerDistilled" else timm.models.vision_transformer
    arguments = {name: getattr(module, value) if name == "block_fn" else value for name, value in arguments.items()}
    theirs = getattr(module, kind or "VisionTransformer")(**{**COMMON, **arguments}).eval()
    randomise(theirs, seed=1)
    ours = VisionTransformer(BASE.replace(**changes)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_timms(timm, variant):
    ours, theirs = pair(timm, variant)
    images = torch.randn(
        3, ours.config.in_channels, *ours.config.image_size, generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        got, expected = ours(images), theirs(images)
        torch.testing.assert_close(ours.embed(images), theirs.norm_pre(theirs._pos_embed(theirs.patch_embed(images))))
    assert got.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_the_defaults_are_deit_at_its_real_size(timm):
    theirs = timm.create_model("deit_tiny_patch16_224", depth=1).eval()
    randomise(theirs)
    ours = VisionTransformer(
        SMALL.replace(
            image_size=(224, 224), patch_size=16, width=192, depth=1, heads=3, mlp_width=768, num_classes=1000
        )
    ).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_blocks_have_the_attributes_that_users_of_timm_know():
    model = small_model(heads=4, layer_scale=True)
    block = model.blocks[1]
    assert (model.embed_dim, model.num_prefix_tokens, model.patch_embed.num_patches) == (64, 1, 16)
    assert (block.attn.num_heads, block.attn.head_dim, block.attn.scale) == (4, 16, 0.25)
    assert [name for name, _ in block.named_children()] == ["norm1", "attn", "ls1", "norm2", "mlp", "ls2"]


def test_forward_is_embed_blocks_head():
    model = small_model(distilled=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), model.forward_head(model.blocks(model.embed(images))))


@pytest.mark.parametrize("fc_norm", [False, True])
def test_mean_pooling_weighs_tokens_by_size(fc_norm):
    model = small_model(pool="avg", fc_norm=fc_norm)
    x = torch.randn(2, 4, 64)
    size = torch.tensor([[1.0, 3.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    normed = model.norm(x)
    # three tokens that stand for 3, 1 and 2 patches are six tokens, some of them alike
    spread = torch.cat([normed[:1, 1:2]] * 3 + [normed[:1, 2:3]] + [normed[:1, 3:4]] * 2, dim=1)
    expected = model.head(model.fc_norm(torch.cat([spread.mean(1), normed[1:, 1:].mean(1)])))
    torch.testing.assert_close(model.forward_head(x, size), expected)
    torch.testing.assert_close(model.forward_head(x)[1], expected[1])
    assert not torch.allclose(model.forward_head(x)[0], expected[0])


def test_the_class_token_is_not_weighed():
    model = small_model()
    x = torch.randn(1, 3, 64)
    assert torch.equal(model.forward_head(x, torch.tensor([[1.0, 5.0, 2.0]])), model.forward_head(x))


@pytest.mark.parametrize("shape", [(1, 3, 48, 32), (1, 1, 32, 32), (3, 32, 32)], ids=["size", "channels", "no-batch"])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match="the model takes batch x 3 x 32 x 32"):
        small_model()(torch.zeros(shape))


@pytest.mark.parametrize(
    "changes",
    [{"distilled": True}, {"pool": "avg", "layer_scale": True}, {"scales": (16,), "fusion": "concat"}],
    ids=["distilled", "mean", "multi-scale"],
)
def test_it_exports_with_a_dynamic_batch(changes):
    model = small_model(**changes)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    images = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), model(images), rtol=0, atol=1e-5)


def test_weights_survive_a_round_trip():
    model = small_model(distilled=True)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = VisionTransformer(model.config).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), other(images))
