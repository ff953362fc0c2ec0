import pytest
import torch

from tests.models.weights import SMALL, shapes_of, small_weights
from tmdeploy.errors import CheckpointError, UsageError
from tmdeploy.models.arch import arch_names, named_config
from tmdeploy.models.infer_arch import infer, infer_config
from tmdeploy.models.vit import VisionTransformer

# Same structure, another name: which of them a checkpoint is cannot be seen in its shapes.
TWINS = {
    "vit_tiny_patch16_224": "deit_tiny_patch16_224",
    "vit_small_patch16_224": "deit_small_patch16_224",
    "vit_base_patch16_224": "deit_base_patch16_224",
    "vit_base_patch16_384": "deit_base_patch16_384",
}


def named_shapes(name, **overrides):
    with torch.device("meta"):
        return shapes_of(VisionTransformer(named_config(name, **overrides)).state_dict())


@pytest.mark.parametrize("name", arch_names())
def test_every_named_architecture_is_recognised(name):
    config = named_config(name)
    shapes = named_shapes(name)
    assert infer_config(shapes) == named_config(TWINS.get(name, name), num_classes=config.num_classes)
    assert infer_config(shapes, arch=name) == config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"distilled": True},
        {"registers": 2},
        {"registers": 4, "pos_embed_prefix": False},
        {"layer_scale": True, "qkv_bias": False},
        {"pre_norm": True, "patch_bias": False, "norm_eps": 1e-5},
        {"pool": "avg", "fc_norm": True},
        {"pool": "avg", "class_token": False},
        {"num_classes": 0},
        {"in_channels": 1, "mlp_width": 40},
        {"scales": (16,)},
        {"scales": (16, 32), "fusion": "concat"},
        {"image_size": (64, 64)},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_fields_are_read_from_shapes(changes):
    assert infer_config(shapes_of(small_weights(**changes))) == SMALL.replace(**changes)


def test_a_fine_tuned_head_and_another_size_keep_the_name():
    config = infer_config(named_shapes("deit_small_patch16_224", num_classes=10, image_size=(160, 160)))
    assert (config.name, config.num_classes, config.image_size) == ("deit_small_patch16_224", 10, (160, 160))


def test_a_multi_scale_stem_keeps_the_name():
    config = infer_config(named_shapes("deit_small_patch16_224", scales=(32,)))
    assert (config.name, config.scales, config.heads) == ("deit_small_patch16_224", (32,), 6)


def test_a_twin_with_other_input_statistics_is_noted():
    found = infer(named_shapes("vit_small_patch16_224"))
    assert found.config.name == "deit_small_patch16_224"
    assert "pass --arch vit_small_patch16_224" in found.notes[0]
    assert infer(named_shapes("vit_small_patch16_224"), arch="vit_small_patch16_224").notes == ()


def test_heads_come_from_the_option_the_architecture_or_the_width():
    assert infer_config(named_shapes("vit_huge_patch14_224")).heads == 16  # of 80, not of 64
    guessed = infer(shapes_of(small_weights(width=128, heads=8)))
    assert guessed.config.heads == 2
    assert "assumed to be width / 64 = 2: pass --num-heads" in guessed.notes[0]
    assert infer_config(shapes_of(small_weights(width=128, heads=8)), num_heads=8).heads == 8


def test_heads_that_cannot_be_guessed_are_asked_for():
    shapes = shapes_of(small_weights(width=48, heads=3))
    with pytest.raises(CheckpointError, match=r"nor guessed for width 48\. Give --num-heads"):
        infer_config(shapes)
    assert infer_config(shapes, num_heads=3).heads == 3


def test_heads_must_divide_the_width():
    for heads in (0, 7):
        with pytest.raises(UsageError, match=f"{heads} attention heads do not divide the width 64"):
            infer_config(shapes_of(small_weights()), num_heads=heads)


def test_image_size_replaces_that_of_the_weights():
    found = infer(shapes_of(small_weights()), image_size=48)
    assert (found.config.image_size, found.weights_grid) == ((48, 48), (4, 4))


@pytest.mark.parametrize(("size", "advice"), [(50, "48 or 56"), (0, "8 or 16"), (-8, "8 or 16")])
def test_an_impossible_image_size_gets_possible_ones(size, advice):
    with pytest.raises(UsageError, match=f"image size {size} is not a multiple of the patch size 8.*{advice}"):
        infer_config(shapes_of(small_weights()), image_size=size)


def test_the_wrong_arch_says_what_differs_and_which_fits():
    shapes = named_shapes("deit_tiny_patch16_224")
    with pytest.raises(CheckpointError) as caught:
        infer_config(shapes, arch="deit_small_distilled_patch16_224")
    message = str(caught.value)
    assert "no deit_small_distilled_patch16_224: width is 192, not 384; mlp_width is 768, not 1536" in message
    assert "Pass --arch deit_tiny_patch16_224, or leave --arch out" in message


def test_the_wrong_arch_for_unregistered_weights():
    with pytest.raises(CheckpointError, match="Leave --arch out to infer it"):
        infer_config(shapes_of(small_weights()), arch="deit_tiny_patch16_224")


def test_a_mean_pooled_fine_tune_of_a_class_token_architecture():
    shapes = named_shapes("deit_tiny_patch16_224", pool="avg", fc_norm=True)
    config = infer_config(shapes, arch="deit_tiny_patch16_224")
    assert (config.pool, config.fc_norm, config.name) == ("avg", True, "deit_tiny_patch16_224")


def test_a_non_square_grid_is_explained():
    shapes = shapes_of(small_weights(image_size=(32, 48)))
    assert shapes["pos_embed"][1] == 1 + 4 * 6
    with pytest.raises(CheckpointError, match=r"24 entries: no square grid, with or without 1 prefix.*save_checkpoint"):
        infer_config({**shapes, "pos_embed": (1, 24, 64)})
    # 4 x 6 patches and a class token can also be 5 x 5 patches without
    assert "read as that of 5 x 5 patches, without prefix tokens" in infer(shapes).notes[0]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "a ResNet"),
        (["vit.embeddings.patch_embeddings.projection.weight"], "Hugging Face transformers' names"),
        (["conv_proj.weight", "encoder.layers.encoder_layer_0.mlp.0.weight"], "torchvision's names"),
        (["patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"], "a Swin"),
        (["visual.conv1.weight", "token_embedding.weight"], "a CLIP model"),
        (["stages.0.blocks.0.conv_dw.weight"], "a convolutional network"),
        (["a", "b"], "no ViT: 'patch_embed.proj.weight' and 'blocks.0.*' are not among its 2 tensors"),
    ],
)
def test_other_layouts_are_named(names, what):
    with pytest.raises(CheckpointError) as caught:
        infer_config(dict.fromkeys(names, (4, 3, 4, 4)))
    assert what in str(caught.value)
    assert "timm-style ViT" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("blocks.0.attn.q_norm.weight", "normalised queries and keys"),
        ("blocks.0.mlp.w12.weight", "a gated MLP"),
        ("blocks.0.attn.q_proj.weight", "separate q, k and v projections"),
        ("blocks.0.attn.relative_position_bias_table", "relative position embeddings"),
        ("attn_pool.latent", "attention pooling"),
    ],
)
def test_parts_that_are_not_supported_are_named(name, what):
    with pytest.raises(CheckpointError, match=f"{what}.*tmdeploy.patch"):
        infer_config({**shapes_of(small_weights()), name: (64, 64)})


def test_missing_and_malformed_weights_are_named():
    shapes = shapes_of(small_weights())
    with pytest.raises(CheckpointError, match="no 'pos_embed'"):
        infer_config({name: shape for name, shape in shapes.items() if name != "pos_embed"})
    with pytest.raises(CheckpointError, match=r"'pos_embed' has shape \[64\], not 3 dimensions"):
        infer_config({**shapes, "pos_embed": (64,)})
    with pytest.raises(CheckpointError, match="no block 2, but one numbered 999999"):
        infer_config({**shapes, "blocks.999999.norm1.weight": (64,)})
    with pytest.raises(CheckpointError, match="patches are 8 x 4 pixels"):
        infer_config({**shapes, "patch_embed.proj.weight": (64, 3, 8, 4)})
