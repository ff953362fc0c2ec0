import pytest
import torch
from torch import nn

import tmdeploy
from tests.vits import tiny_images, tiny_vit
from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.patching import reduction_of, unpatch


def _patched(name: str, **arguments: object):
    return tmdeploy.patch(tiny_vit(), name, **arguments)


def test_parameters_keep_their_names_and_unpatch_restores():
    images, model = tiny_images(), tiny_vit()
    names, before = list(model.state_dict()), model(images)
    tmdeploy.patch(model, "tome", r=8)
    assert list(model.state_dict()) == names
    tmdeploy.patch(model, "topk", layers=[1], keep=0.5)  # again, with another method
    assert reduction_of(model).recipe.method == "topk"
    assert torch.equal(unpatch(model)(images), before)
    with pytest.raises(UnsupportedModel, match="not patched"):
        reduction_of(model)


def test_sizes_sum_to_the_patches():
    model = _patched("tome", r=8)
    model(tiny_images())
    size = reduction_of(model).size
    assert size is not None
    assert size.sum(1).tolist() == [65.0] * 3
    assert size[:, 0].eq(1).all()


def test_prop_attn_is_masked_multiplicity():
    """log(size) in the logits equals repeating the key size times (ToMe, section 3.3)."""
    model = tiny_vit()
    x, size = torch.randn(1, 6, 48), torch.tensor([[1.0, 3, 1, 2, 1, 1]])
    from tmdeploy.patching.attention import attend

    attention = model.blocks[0].attn
    biased, _ = attend(attention, x, size=size)
    repeated = x.repeat_interleave(size[0].long(), dim=1)
    plain, _ = attend(attention, repeated, size=None)
    first_copy = [0, 1, 4, 5, 7, 8]
    torch.testing.assert_close(biased[0], plain[0, first_copy])


def test_prop_attn_can_be_switched_off():
    images = tiny_images()
    on, off = _patched("tome", r=8), _patched("tome", r=8, options={"prop_attn": False})
    assert not torch.allclose(on(images), off(images), atol=1e-4)


def test_mean_pooling_weighs_by_size():
    """MAE's pooled head: (x * s)[:, 1:].sum / T, T the patch count before merging (methods.md 2.1)."""
    model = tmdeploy.patch(tiny_vit(pool="avg", fc_norm=True), "tome", r=8, options={"prop_attn": False})
    images = tiny_images()
    logits = model(images)
    size = reduction_of(model).size
    assert size is not None
    tokens = model.blocks(model.embed(images))
    pooled = (tokens * size[..., None])[:, 1:].sum(1) / 64
    torch.testing.assert_close(logits, model.head(model.fc_norm(pooled)))


def _matrix(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [B, H, N, N] and keys [B, H, N, C] of block 1, whole."""
    x = model.blocks[0](model.embed(images))
    attn, batch, tokens = model.blocks[1].attn, len(images), x.shape[1]
    qkv = attn.qkv(model.blocks[1].norm1(x)).reshape(batch, tokens, 3, 3, 16).permute(2, 0, 3, 1, 4)
    return ((qkv[0] @ qkv[1].transpose(-2, -1)) * 16**-0.5).softmax(-1), qkv[1]


@pytest.mark.parametrize("method", ["evit", "topk", "mstm"])
@pytest.mark.parametrize("prefix", [{"class_token": False}, {"class_token": False, "registers": 4}, {}], ids=str)
@torch.no_grad()
def test_scores_without_a_class_token(method: str, prefix: dict):
    changes = {**prefix, "pool": "avg", "fc_norm": True}
    first, images = tiny_vit(**changes).num_prefix_tokens, tiny_images()
    attention, keys = _matrix(tiny_vit(**changes), images)
    norms = keys.norm(dim=-1).mean(1)
    expected = {
        "received": attention[:, :, first:].mean(dim=(1, 2)),  # by the patch tokens: registers are no witnesses
        "key_norm": norms / norms.sum(1, keepdim=True),
    }
    for score, wanted in expected.items():
        model = tmdeploy.patch(tiny_vit(**changes), method, layers=[1], keep=0.5, options={"score": score})
        state = reduction_of(model)
        state.record = True
        model(images)
        (step,) = state.steps
        torch.testing.assert_close(step.signal, wanted, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(wanted.sum(1), torch.ones(3))  # as an attention row: EViT fuses by it
        kept = set(step.index[0, first : first + 32].tolist())
        assert kept == set((wanted[0, first:].argsort(descending=True)[:32] + first).tolist())


def test_mean_pooling_can_be_plain():
    """ToMe's patch for timm takes the plain mean of what is left, its patch for MAE weighs it by size."""
    images = tiny_images()
    model = tmdeploy.patch(tiny_vit(pool="avg", fc_norm=True), "tome", r=8, options={"pool": "mean"})
    left = model.blocks(model.embed(images))
    torch.testing.assert_close(model(images), model.head(model.fc_norm(left[:, 1:].mean(1))))
    sized = tmdeploy.patch(tiny_vit(pool="avg", fc_norm=True), "tome", r=8)
    assert not torch.allclose(model(images), sized(images), atol=1e-4)


def test_amounts_can_change_between_passes():
    images, model = tiny_images(), _patched("tome", r=8)
    state = reduction_of(model)
    state.set_schedule([2, 2, 2, 2])
    torch.testing.assert_close(model(images), _patched("tome", r=2)(images))
    with pytest.raises(UsageError, match="1 amounts for 4"):
        state.set_schedule([2])


def _evit_of_the_paper(model: nn.Module, images: torch.Tensor, layers: list[int], keep: float) -> torch.Tensor:
    """EViT over a whole model, written from methods.md 3.1 with the full attention matrix."""
    x = model.embed(images)
    for number, block in enumerate(model.blocks):
        batch, tokens, width = x.shape
        qkv = block.attn.qkv(block.norm1(x)).reshape(batch, tokens, 3, 3, width // 3).permute(2, 0, 3, 1, 4)
        attention = ((qkv[0] @ qkv[1].transpose(-2, -1)) * (width // 3) ** -0.5).softmax(-1)
        x = x + block.attn.proj((attention @ qkv[2]).transpose(1, 2).reshape(batch, tokens, width))
        if number in layers:
            score = attention[:, :, 0, 1:].mean(1)
            count = -(-keep * (tokens - 1) // 1)
            order = score.argsort(dim=1, descending=True, stable=True)
            best, rest = order[:, : int(count)], order[:, int(count) :]
            patches = x[:, 1:]
            kept = patches.gather(1, best[..., None].expand(-1, -1, width))
            left = patches.gather(1, rest[..., None].expand(-1, -1, width)) * score.gather(1, rest)[..., None]
            x = torch.cat([x[:, :1], kept, left.sum(1, keepdim=True)], dim=1)
        x = x + block.mlp(block.norm2(x))
    return model.forward_head(x)


@torch.no_grad()
def test_evit_equals_the_original_over_a_whole_model():
    images = tiny_images()
    ours = tmdeploy.patch(tiny_vit(), "evit", layers=[1, 2], keep=0.7)(images)
    torch.testing.assert_close(ours, _evit_of_the_paper(tiny_vit(), images, [1, 2], 0.7), atol=2e-5, rtol=1e-5)


def test_mstm_merges_into_the_most_similar_crucial_token():
    model = _patched("mstm", keep=0.5)
    state = reduction_of(model)
    state.record = True
    model(tiny_images())
    step = state.steps[0]
    x = nn.functional.normalize(step.x_in.double(), dim=-1)
    for image in range(3):
        crucial = step.index[image, 1:].long()
        assert crucial.tolist() == sorted(crucial.tolist())
        rest = sorted(set(range(1, 65)) - set(crucial.tolist()))
        nearest = (x[image, rest] @ x[image, crucial].T).argmax(1) + 1
        assert step.map[image, rest].tolist() == nearest.tolist()


def test_what_is_no_vit_is_refused():
    with pytest.raises(UnsupportedModel, match=r"Linear has no `blocks`.*call the ops directly"):
        tmdeploy.patch(nn.Linear(2, 2), "tome")
    model = tiny_vit()
    del model.blocks[1].attn.qkv
    with pytest.raises(UnsupportedModel, match=r"blocks\.1\.attn \(Attention\) has no qkv"):
        tmdeploy.patch(model, "tome")
