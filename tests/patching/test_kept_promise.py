"""`patch` changes no model silently: what it accepts is equal with nothing removed, the rest is refused by name."""

from __future__ import annotations

import copy
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import tmdeploy
from tests.vits import tiny_images, tiny_vit
from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.patching import reduction_of, unpatch

# timm's ViTs of small size: what they are made of is what counts
KEPT = {
    "plain": ("vit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "layer scale, no position of the prefix": ("deit3_small_patch16_224", {}),
    "post-norm": ("vit_base_patch16_rpn_224", {}),
    "registers, mean": ("vit_medium_patch16_reg4_gap_256", {}),
    "mean with the prefix": ("vit_tiny_patch16_224", {"global_pool": "avg", "pool_include_prefix": True}),
    "mean and maximum": ("vit_tiny_patch16_224", {"global_pool": "avgmax"}),
    "attention pooling": ("vit_base_patch16_siglip_224", {}),
    "CLIP, quick GELU": ("vit_base_patch32_clip_quickgelu_224", {}),
    "norms of queries, keys and attention": (
        "vit_tiny_patch16_224",
        {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
    ),
    "SwiGLU": ("vit_small_patch14_dinov2", {"img_size": 224}),
    "any image size": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
}
REFUSED = {
    "vit_dpwee_patch16_reg1_gap_256": r"blocks\.0 \(DiffParallelScalingBlock\) has no norm1",
    "vit_dwee_patch16_reg1_gap_256": r"blocks\.0\.attn \(DiffAttention\) has lambda_q1",
    "vit_small_patch16_18x2_224": r"blocks\.0 \(ParallelThingsBlock\) has no norm1",
    "beit_base_patch16_224": r"blocks\.0 \(Block\) has gamma_1",
    "eva02_tiny_patch14_224": r"blocks\.0\.attn \(EvaAttention\) has q_bias",
    "vit_relpos_small_patch16_224": r"blocks\.0\.attn \(RelPosAttention\) has rel_pos",
    "samvit_base_patch16_224": r"blocks\.0\.attn \(Attention\) has rel_pos_h",
    "cait_xxs24_224": r"blocks\.0 \(LayerScaleBlock\) has gamma_1",
    "swin_tiny_patch4_window7_224": "SwinTransformer has no `blocks`",
    "mixer_s32_224": r"blocks\.0 \(MixerBlock\) has no attn",
    "xcit_nano_12_p16_224": r"blocks\.0 \(XCABlock\) has gamma1",
}


def _timm(timm: ModuleType, name: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, num_classes=7, embed_dim=48, num_heads=3, **changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # past initial values that hide a branch: zeros, a LayerScale of 1e-5
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("kind", KEPT)
@torch.no_grad()
def test_timms_vits_stay_what_they_are(kind: str, timm: ModuleType):
    name, changes = KEPT[kind]
    model = _timm(timm, name, **changes)
    images = torch.randn(2, 3, *model.patch_embed.img_size)
    before = model(images)
    tmdeploy.patch(model, "tome", r=0)
    torch.testing.assert_close(model(images), before, atol=1e-4, rtol=1e-4)
    tmdeploy.patch(model, "tome", r=16)
    assert not torch.allclose(model(images), before, atol=1e-4)
    torch.testing.assert_close(unpatch(model)(images), before)


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_by_name(name: str, timm: ModuleType):
    try:
        model = timm.create_model(name, depth=1)
    except TypeError:
        model = timm.create_model(name)
    before = [(part, dict(part.__dict__)) for part in model.modules()]
    with pytest.raises(UnsupportedModel, match=REFUSED[name]):
        tmdeploy.patch(model, "tome", r=4)
    assert all(part.__dict__.keys() == attributes.keys() for part, attributes in before)


def test_our_own_post_norm_blocks():
    model, images = tiny_vit(norm_placement="res_post"), tiny_images()
    before = model(images)
    for check in (True, False):
        tmdeploy.patch(model, "tome", r=0, check=check)
        torch.testing.assert_close(model(images), before, atol=2e-5, rtol=1e-5)


class _Attention(nn.Module):
    """The user's own: same parts, other arithmetic."""

    def __init__(self, old: nn.Module, change: str) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.change = old.num_heads, old.head_dim, change
        self.qkv, self.proj = old.qkv, old.proj

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.change == "cosine":
            q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        if self.change == "order":
            q, k = k, q
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.change == "causal")
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


@pytest.mark.parametrize("change", ["cosine", "order", "causal"])
def test_an_attention_of_the_users_own(change: str):
    model, images = tiny_vit(), tiny_images()
    model.blocks[2].attn = _Attention(model.blocks[2].attn, change)
    before = model(images)
    with pytest.raises(UnsupportedModel, match=r"blocks\.2 \(Block\) its attention \(_Attention\) is no plain softmax"):
        tmdeploy.patch(model, "tome", r=4)
    assert torch.equal(model(images), before)


def test_an_attention_of_the_users_own_that_is_the_plain_one():
    model, images = tiny_vit(), tiny_images()
    model.blocks[2].attn = _Attention(model.blocks[2].attn, "none")
    before = model(images)
    torch.testing.assert_close(tmdeploy.patch(model, "tome", r=0)(images), before, atol=2e-5, rtol=1e-5)


def _parallel(self: nn.Module, x: Tensor) -> Tensor:
    y = self.norm1(x)
    return x + self.attn(y) + self.mlp(y)


def _twice(self: nn.Module, x: Tensor) -> Tensor:
    x = x + self.attn(self.norm1(x))
    return x + 2 * self.mlp(self.norm2(x))


def _unnormed(self: nn.Module, x: Tensor) -> Tensor:
    x = x + self.attn(self.norm1(x) + 1)
    return x + self.mlp(self.norm2(x))


def _pair(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (_parallel, "gives its mlp something else than the tokens after attention"),
        (_twice, r"computes something else than x \+ attn\(norm1\(x\)\), then x \+ mlp\(norm2\(x\)\): off by"),
        (_unnormed, "does not attend to its tokens, or to norm1 of them"),
        (_pair, "returns a tuple"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_blocks_with_other_code(forward: object, reason: str):
    model = tiny_vit()
    model.blocks[1].forward = forward.__get__(model.blocks[1])
    own = model.blocks[1].forward
    with pytest.raises(UnsupportedModel, match=rf"blocks\.1 \(Block\) {reason}"):
        tmdeploy.patch(model, "tome", r=4)
    assert model.blocks[1].forward == own


class _Wrapped(nn.Module):
    """A forward of the user's own around our ViT."""

    def __init__(self, vit: nn.Module, change: str) -> None:
        super().__init__()
        self.vit, self.blocks, self.change = vit, vit.blocks, change
        self.patch_embed, self.cls_token, self.config = vit.patch_embed, vit.cls_token, vit.config

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.vit.embed(images)
        for number, block in enumerate(self.blocks):
            if self.change == "repeats" and number == 2:
                x = block(x)
            if self.change == "skips" and number == 2:
                continue
            x = block(x, mask) if mask is not None else block(x)
            if self.change == "positions":
                x = x + self.vit.pos_embed
        if self.change == "dense":
            x[:, 1:].transpose(1, 2).reshape(len(x), 48, 8, 8)
        return self.vit.forward_head(x)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("repeats", r"blocks\.2 \(Block\) is called twice, or out of turn"),
        ("skips", r"blocks\.3 \(Block\) is called twice, or out of turn"),
        ("positions", "its forward cannot go on with fewer tokens"),
        ("dense", "its forward cannot go on with fewer tokens"),
    ],
)
def test_forwards_that_do_more_than_run_the_blocks(change: str, reason: str):
    with pytest.raises(UnsupportedModel, match=reason):
        tmdeploy.patch(_Wrapped(tiny_vit(), change), "tome", r=4)


def test_what_a_forward_gives_its_blocks_later_is_refused_there():
    model = tmdeploy.patch(_Wrapped(tiny_vit(), "none"), "tome", r=4)
    with pytest.raises(UnsupportedModel, match=r"blocks\.0 \(Block\) is given a Tensor, which a block that reduces"):
        model(tiny_images(), torch.zeros(65, 65))


def test_hooks_checkpointing_compilation_and_shared_blocks():
    def refused(model: nn.Module, reason: str) -> None:
        with pytest.raises(UnsupportedModel, match=reason):
            tmdeploy.patch(model, "tome", r=4)

    model = tiny_vit()
    handle = model.blocks[0].attn.register_forward_hook(lambda *_: None)
    refused(model, r"blocks\.0\.attn \(Attention\) has forward hooks")
    handle.remove()
    refused(torch.compile(model), "is compiled by torch.compile.*Patch the module first")
    model.grad_checkpointing = True
    refused(model, r"checkpoints gradients.*set_grad_checkpointing\(False\)")
    model.grad_checkpointing = False
    model.blocks[3] = model.blocks[1]
    refused(model, r"blocks\.3 \(Block\) is blocks\.1 again")
    patched = tmdeploy.patch(tiny_vit(), "tome", r=4)
    refused(_Wrapped(patched, "none"), r"blocks\.0 \(Block\) is patched as a part of another module")


def test_prefix_tokens_that_the_module_does_not_name():
    model = _Wrapped(tiny_vit(), "none")
    model.cls_token = None
    with pytest.raises(
        UnsupportedModel, match="says 64 patches and 0 prefix tokens, but 65 tokens enter.*num_prefix_tok"
    ):
        tmdeploy.patch(model, "tome", r=4)
    model.num_prefix_tokens = 1
    tmdeploy.patch(model, "tome", r=4)
    assert reduction_of(model).num_prefix == 1


def test_input_that_the_module_does_not_name():
    model = _Wrapped(tiny_vit(), "none")
    model.patch_embed, model.config = nn.Identity(), None
    with pytest.raises(UnsupportedModel, match=r"does not say what images it takes.*check=images"):
        tmdeploy.patch(model, "tome", r=4)
    tmdeploy.patch(model, "tome", r=4, check=tiny_images(1))
    assert [step.tokens_in for step in reduction_of(model).recipe.steps(65, 1)] == [65, 61, 57, 53]
    with pytest.raises(UsageError, match="images of shape 1 x 3 x 32 x 32"):
        tmdeploy.patch(model, "tome", r=4, check=torch.zeros(1, 3, 32, 32))


def test_weights_that_are_not_there_yet():
    with torch.device("meta"):
        model = tiny_vit()
    with pytest.raises(UnsupportedModel, match="weights are on the meta device.*check=False"):
        tmdeploy.patch(model, "tome", r=4)
    tmdeploy.patch(model, "tome", r=4, check=False)


def test_a_refused_patch_leaves_the_earlier_one():
    model, images = tiny_vit(), tiny_images()
    plain = model(images)
    merged = tmdeploy.patch(model, "tome", r=4)(images)
    with pytest.raises(UsageError):
        tmdeploy.patch(model, "topk", layers=[1], keep=0.5, check=torch.zeros(1, 3, 4, 4))
    assert torch.equal(model(images), merged)
    assert torch.equal(unpatch(model)(images), plain)


def test_the_check_leaves_modes_random_state_and_statistics():
    model = tiny_vit().train()
    model.blocks[0].mlp.eval()
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    tmdeploy.patch(model, "tome", r=4)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_in_training_is_the_attentions_own():
    model = tiny_vit()
    for block in model.blocks:
        block.attn.attn_drop = nn.Dropout(0.5)
    tmdeploy.patch(model, "tome", r=0)
    images = tiny_images()
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.allclose(model(images), model(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype):
    model = tmdeploy.patch(tiny_vit().to(dtype), "tome", r=4)
    assert model(tiny_images().to(dtype)).dtype == dtype


def test_a_copy_is_a_model_of_its_own():
    model, images = tmdeploy.patch(tiny_vit(), "tome", r=4), tiny_images()
    other = copy.deepcopy(model)
    reduction_of(other).set_schedule([0, 0, 0, 0])
    assert not torch.allclose(model(images), other(images), atol=1e-4)
    assert torch.equal(unpatch(other)(images), tiny_vit()(images))
    assert reduction_of(model).amounts[0] == 4
