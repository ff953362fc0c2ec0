import re

import pytest
import torch

from tests.models.weights import SMALL, shapes_of, small_weights
from tmdeploy.card.arch import arch_names, named_config
from tmdeploy.errors import CheckpointError, UsageError
from tmdeploy.models.assume import Assumed
from tmdeploy.models.infer_arch import infer, infer_config
from tmdeploy.models.vit import VisionTransformer

# Same structure and arithmetic, or one that is rare: which of them a checkpoint is cannot be seen in its shapes.
TWINS = {
    "mocov3_vit_small": "deit_small_patch16_224",
    "vit_tiny_patch16_224": "deit_tiny_patch16_224",
    "vit_small_patch16_224": "deit_small_patch16_224",
    "vit_base_patch16_224": "deit_base_patch16_224",
    "vit_base_patch16_384": "deit_base_patch16_384",
    "vit_base_patch16_gap_224": "vit_base_patch16_siglip_gap_224",
}
# Same structure, other arithmetic (activation), both common: the user is asked.
ASKED = re.compile(r"vit_(base_patch(16|32)|large|huge|gigantic)_?.*clip_|vit_large_patch16_siglip_gap_")
NOT_ASKED = {"vit_base_patch16_plus_clip_240"}


def named_shapes(name, **overrides):
    with torch.device("meta"):
        return shapes_of(VisionTransformer(named_config(name, **overrides)).state_dict())


@pytest.mark.parametrize("name", arch_names())
def test_every_named_architecture_is_recognised_or_asked_about(name):
    config = named_config(name)
    shapes = named_shapes(name)
    assert infer_config(shapes, arch=name) == config
    if ASKED.match(name) and name not in NOT_ASKED:
        with pytest.raises(CheckpointError, match="models that compute different things") as caught:
            infer_config(shapes)
        assert "--arch" in str(caught.value)
        assert f"--assume act={config.act}" in str(caught.value)
        assert infer_config(shapes, assumed=Assumed(act=config.act)) == config
    else:
        assert infer_config(shapes) == named_config(TWINS.get(name, name), num_classes=config.num_classes)


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


def test_known_models_of_the_same_shapes_are_named():
    found = infer(named_shapes("vit_small_patch16_224"))
    assert found.config.name == "deit_small_patch16_224"
    assumed, rivals = found.notes
    assert "heads 6, act gelu, norm_placement pre, pool token, norm_eps 1e-06" in assumed
    assert "mean 0.485,0.456,0.406" in assumed
    assert "(deit_small_patch16_224)" in assumed
    assert "Prove it with export --against" in assumed
    assert "vit_small_patch16_224 (mean 0.5,0.5,0.5, std 0.5,0.5,0.5)" in rivals
    assert "mocov3_vit_small (heads 12, crop_pct 0.875)" in rivals
    assert "pass --arch NAME" in rivals


def test_deit_small_at_another_size_is_told_from_what_it_is_read_as():
    found = infer(named_shapes("deit_small_patch16_224", image_size=(384, 384)))
    assert (found.config.name, found.preprocessing.mean) == ("vit_small_patch16_384", (0.5, 0.5, 0.5))
    assert "deit_small_patch16_224 (mean 0.485,0.456,0.406, std 0.229,0.224,0.225, crop_pct 0.9)" in found.notes[1]
    said = infer(named_shapes("deit_small_patch16_224", image_size=(384, 384)), arch="deit_small_patch16_224")
    assert (said.preprocessing.mean, said.preprocessing.image_size) == ((0.485, 0.456, 0.406), (384, 384))


def test_what_an_arch_says_is_listed_and_needs_no_warning():
    found = infer(named_shapes("vit_small_patch16_224"), arch="vit_small_patch16_224")
    assert found.notes == ()
    assert {one.why for one in found.assumptions} == {"--arch vit_small_patch16_224"}
    assert not any(one.alternatives for one in found.assumptions)


def test_what_is_said_is_taken_and_the_rest_is_the_usual():
    shapes = shapes_of(small_weights(width=128, heads=8, layer_scale=True))
    said = Assumed(heads=8, act="relu", pool="avg", norm_eps=1e-3, mean=(0.1, 0.2, 0.3), crop_pct=0.7)
    found = infer(shapes, assumed=said)
    config = found.config
    assert (config.heads, config.act, config.pool, config.norm_eps) == (8, "relu", "avg", 1e-3)
    assert (found.preprocessing.mean, found.preprocessing.crop_pct) == ((0.1, 0.2, 0.3), 0.7)
    reasons = {one.key: (one.value, one.why) for one in found.assumptions}
    assert reasons["act"] == ("relu", "--assume")
    assert reasons["mean"] == ("0.1,0.2,0.3", "--assume")
    assert reasons["std"] == ("0.229,0.224,0.225", "the usual of ImageNet")
    assert reasons["grid"] == ("4x4", "the square one")
    assert "norm_placement" not in reasons  # LayerScale shows it
    assert "act" not in found.notes[0]


def test_what_shapes_settle_is_no_assumption():
    without_class_token = infer(shapes_of(small_weights(pool="avg", class_token=False)))
    assert "pool" not in {one.key for one in without_class_token.assumptions}
    distilled = infer(shapes_of(small_weights(distilled=True)))
    assert "pool" not in {one.key for one in distilled.assumptions}
    assert "resample" in {one.key for one in infer(shapes_of(small_weights(scales=(16,)))).assumptions}


def test_saying_something_chooses_among_known_models():
    shapes = named_shapes("mocov3_vit_small")
    assert infer_config(shapes, assumed=Assumed(heads=12)).name == "mocov3_vit_small"
    odd = infer_config(shapes, assumed=Assumed(heads=3))
    assert (odd.name, odd.heads) == ("vit", 3)


def test_deit_three_and_rope_vit_are_asked_about_under_their_official_names():
    shapes = named_shapes("deit3_small_patch16_224")
    assert infer_config(shapes).name == "deit3_small_patch16_224"
    with pytest.raises(CheckpointError) as caught:
        infer(shapes, official_names=True)
    assert "vit_small_patch16_rope_ape_224 (rotary position embeddings)" in str(caught.value)
    assert str(caught.value).endswith("Say which one it is: --arch deit3_small_patch16_224.")
    assert infer(shapes, official_names=True, arch="deit3_small_patch16_224").config.layer_scale


def test_heads_come_from_what_is_said_the_architecture_or_the_width():
    assert infer_config(named_shapes("vit_huge_patch14_224")).heads == 16  # of 80, not of 64
    guessed = infer(shapes_of(small_weights(width=128, heads=8)))
    assert guessed.config.heads == 2
    assert "heads 2 (width / 64)" in guessed.notes[0]
    assert infer_config(shapes_of(small_weights(width=128, heads=8)), assumed=Assumed(heads=8)).heads == 8


def test_heads_that_cannot_be_guessed_are_asked_for():
    shapes = shapes_of(small_weights(width=48, heads=3))
    with pytest.raises(CheckpointError, match=r"nor guessed for width 48\. Give --num-heads"):
        infer_config(shapes)
    assert infer_config(shapes, assumed=Assumed(heads=3)).heads == 3


def test_heads_must_divide_the_width():
    with pytest.raises(UsageError, match="7 attention heads do not divide the width 64"):
        infer_config(shapes_of(small_weights()), assumed=Assumed(heads=7))


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


def test_a_grid_that_is_no_square_is_said():
    shapes = shapes_of(small_weights(image_size=(32, 64)))
    assert shapes["pos_embed"][1] == 1 + 4 * 8
    with pytest.raises(CheckpointError, match=r"33 entries: no square grid, with or without 1 prefix.*grid=HxW"):
        infer_config(shapes)
    config = infer_config(shapes, assumed=Assumed(grid=(4, 8)))
    assert (config.image_size, config.pos_embed_prefix) == ((32, 64), True)
    with pytest.raises(CheckpointError, match="no grid of 4 x 9"):
        infer_config(shapes, assumed=Assumed(grid=(4, 9)))
    # 4 x 6 patches and a class token can also be 5 x 5 patches without
    ambiguous = shapes_of(small_weights(image_size=(32, 48)))
    assert "grid 5x5 (the square one)" in infer(ambiguous).notes[0]
    assert infer_config(ambiguous, assumed=Assumed(grid=(4, 6))).pos_embed_prefix


def test_more_blocks_than_any_vit_has_are_refused_before_anything_is_built():
    shapes = {**shapes_of(small_weights()), **{f"blocks.{number}.norm1.weight": (64,) for number in range(600)}}
    with pytest.raises(CheckpointError, match="600 blocks: no ViT has more than 512"):
        infer(shapes)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "a ResNet"),
        (["vit.embeddings.patch_embeddings.projection.weight"], "Hugging Face's names"),
        (["conv_proj.weight", "encoder.layers.encoder_layer_0.mlp.0.weight"], "torchvision's names"),
        (["patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"], "a Swin"),
        (["visual.conv1.weight", "token_embedding.weight"], "a CLIP model"),
        (["stages.0.blocks.0.conv_dw.weight"], "a convolutional or hierarchical network"),
        (["vision_model.embeddings.class_embedding"], "a CLIP or SigLIP model with Hugging Face's names"),
        (["vision_model.head.attention.in_proj_weight"], "a SigLIP model with Hugging Face's names"),
        (["visual.trunk.patch_embed.weight"], "a CLIP model"),
        (["blocks.0.0.attn.kv.weight", "patch_embeds.0.proj.weight"], "a Twins"),
        (["blocks.0.blocks.0.0.attn.qkv.weight"], "CrossViT"),
        (["network.0.0.attn.v.weight"], "a VOLO"),
        (["transformers.0.blocks.0.attn.qkv.weight"], "a PiT"),
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
        ("attn_pool.latent", "attention pooling, as SigLIP has it"),
        ("blocks_token_only.0.attn.q.weight", "class-attention blocks, as CaiT has them"),
        ("blocks.0.attn.proj_l.weight", "talking heads, as CaiT has them"),
        ("rope_embed.periods", "rotary position embeddings, as DINOv3 has them"),
        ("rope.freqs", "rotary position embeddings"),
        ("blocks.0.attn.q_bias", "as BEiT and EVA have them"),
        ("blocks.0.attn.norm.weight", "as BEiT-3 and EVA-02 have them"),
        ("blocks.0.attn.lambda_q1", "differential attention"),
        ("blocks.0.attns.0.qkv.weight", "blocks with parallel branches"),
        ("patch_embed.backbone.stem.conv.weight", "a convolutional or normalised stem"),
    ],
)
def test_parts_that_are_not_supported_are_named(name, what):
    with pytest.raises(CheckpointError, match=f"{what}.*tmdeploy.patch"):
        infer_config({**shapes_of(small_weights()), name: (64, 64)})


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vit_giant_patch14_dinov2", "SwiGLU"),
        ("vit_base_patch16_dinov3", "DINOv3"),
        ("vit_small_patch16_rope_224", "RoPE-ViT"),
        ("vit_base_patch16_rope_mixed_ape_224", "RoPE"),
        ("eva02_base_patch14_224", "EVA-02"),
        ("eva02_tiny_patch14_224", "EVA"),
        ("eva_giant_patch14_224", "EVA"),
        ("beit_base_patch16_224", "BEiT"),
        ("beit3_base_patch16_224", "BEiT-3"),
        ("cait_xxs24_224", "CaiT"),
        ("vit_base_patch16_siglip_224", "SigLIP"),
        ("aimv2_large_patch14_224", "AIMv2"),
        ("vit_wee_patch16_reg1_gap_256", None),
        ("vit_dwee_patch16_reg1_gap_256", "differential attention"),
        ("vit_pwee_patch16_reg1_gap_256", "parallel branches"),
        ("vit_base_patch16_radio_v3", "RADIO"),
        ("vit_relpos_small_patch16_224", "relative position"),
        ("samvit_base_patch16", "relative position"),
        ("vit_tiny_r_s16_p8_224", "stem"),
        ("convit_tiny", "ConViT"),
        ("xcit_nano_12_p16_224", "XCiT"),
    ],
)
def test_families_of_timm_are_named(timm, name, family):
    with torch.device("meta"):
        shapes = shapes_of(timm.create_model(name, depth=2).state_dict())
    if family is None:
        assert infer_config(shapes).depth == 2
        return
    with pytest.raises(CheckpointError, match=family) as caught:
        infer_config(shapes)
    assert "mis-shaped" not in str(caught.value)


def test_missing_and_malformed_weights_are_named():
    shapes = shapes_of(small_weights())
    with pytest.raises(CheckpointError, match="there is no pos_embed"):
        infer_config({name: shape for name, shape in shapes.items() if name != "pos_embed"})
    with pytest.raises(CheckpointError, match=r"'pos_embed' has shape \[64\], not 3 dimensions"):
        infer_config({**shapes, "pos_embed": (64,)})
    with pytest.raises(CheckpointError, match="no block 2, but one numbered 999999"):
        infer_config({**shapes, "blocks.999999.norm1.weight": (64,)})
    with pytest.raises(CheckpointError, match="patches are 8 x 4 pixels"):
        infer_config({**shapes, "patch_embed.proj.weight": (64, 3, 8, 4)})
