"""Models of timm whose weights fit tmdeploy's ViT by names and shapes, and that compute something else.

None is silently wrong: what was assumed is told, and what is said with `--assume` makes the model timm's. Those that
known models resemble are asked about; see test_infer_arch.py.
"""

import functools

import pytest
import torch

from tests.models.weights import randomise
from tmdeploy.models.checkpoint import load_model

COMMON = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "num_classes": 5}

# timm's arguments; what has to be said
LOOK_ALIKES = {
    "norm after attention and MLP": ({"block_fn": "ResPostBlock"}, "norm_placement=res-post"),
    "quick GELU": ({"act_layer": "quick_gelu"}, "act=quick-gelu"),
    "tanh GELU": ({"act_layer": "gelu_tanh"}, "act=gelu-tanh"),
    "ReLU": ({"act_layer": "relu"}, "act=relu"),
    "SiLU": ({"act_layer": "silu"}, "act=silu"),
    "CLIP's tower with quick GELU": (
        {
            "pre_norm": True,
            "act_layer": "quick_gelu",
            "norm_layer": functools.partial(torch.nn.LayerNorm, eps=1e-5),
        },
        "act=quick-gelu",
    ),
    "another epsilon": ({"norm_layer": functools.partial(torch.nn.LayerNorm, eps=1e-2)}, "norm_eps=1e-2"),
    "mean of normalised tokens": ({"global_pool": "avg", "fc_norm": False}, "pool=avg"),
    "class token, then norm": ({"fc_norm": True}, "pool=token"),
    "other heads": ({"num_heads": 4}, "heads=4"),
    "other heads beside registers": ({"num_heads": 2, "reg_tokens": 4, "no_embed_class": True}, "heads=2"),
    "oblong images of as many patches": ({"img_size": (16, 64)}, "grid=2x8"),
    "oblong images whose class token has a position": ({"img_size": (32, 48)}, "grid=4x6"),
}


def saved(timm, tmp_path, arguments):
    module = timm.models.vision_transformer
    arguments = {name: getattr(module, value) if name == "block_fn" else value for name, value in arguments.items()}
    theirs = module.VisionTransformer(**{**COMMON, **arguments}).eval()
    randomise(theirs, seed=1)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    size = theirs.patch_embed.img_size
    return theirs, torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_it_is_told_what_was_assumed_and_saying_so_makes_it_right(timm, tmp_path, name):
    arguments, said = LOOK_ALIKES[name]
    theirs, images = saved(timm, tmp_path, arguments)
    key = said.partition("=")[0]
    plain, loaded = load_model(tmp_path / "a.pth")
    assert f" {key} " in loaded.notes[0]
    right, settled = load_model(tmp_path / "a.pth", assume=[said])
    assert {one.key: one.why for one in settled.card.assumptions}[key] == "--assume"
    assert all(f" {key} " not in note for note in settled.notes)
    with torch.no_grad():
        expected = theirs(images)
        torch.testing.assert_close(right(images), expected, rtol=0, atol=1e-5)
        if plain.config.image_size == right.config.image_size:
            assert (plain(images) - expected).abs().max() > 1e-4  # or it would be no look-alike


def test_the_plain_one_is_right_as_it_is(timm, tmp_path):
    theirs, images = saved(timm, tmp_path, {})
    ours, loaded = load_model(tmp_path / "a.pth")
    assert loaded.notes
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
