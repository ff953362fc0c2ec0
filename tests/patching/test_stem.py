from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import tmdeploy
from tests.cli.running import run
from tests.export.exporting import open_session
from tests.vits import tiny_images, tiny_vit
from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.models.checkpoint import load_model, save_checkpoint
from tmdeploy.patching import unpatch


def _timm(timm: ModuleType, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"depth": 2, "num_classes": 7, "embed_dim": 48, "num_heads": 3, "img_size": 64, "patch_size": 8}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **changes).eval()


def _shake(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@torch.no_grad()
def test_a_new_stem_changes_nothing_until_it_is_trained(fusion: str, timm: ModuleType):
    images = tiny_images()
    for model in (tiny_vit(depth=2), _timm(timm)):
        before, names = model(images), set(model.state_dict())
        assert tmdeploy.add_scales(model, [16, 32], fusion=fusion, resample="nearest") is model
        torch.testing.assert_close(model(images), before, atol=1e-5, rtol=1e-5)
        added = {"ms_embed.0.proj.weight", "ms_embed.0.proj.bias", "ms_embed.1.proj.weight", "ms_embed.1.proj.bias"}
        linear = {"ms_fuse.weight", "ms_fuse.bias"} if fusion == "concat" else set()
        assert set(model.state_dict()) - names == added | linear
        _shake(model)
        trained = model(images)
        model.ms_embed[0].proj.weight.zero_()
        assert not torch.allclose(model(images), trained, atol=1e-4)


def test_a_new_stem_learns():
    for fusion in ("sum", "concat"):
        model = tmdeploy.patch(tmdeploy.add_scales(tiny_vit(depth=2), [16], fusion=fusion), "mstm", layers=[1])
        model(tiny_images()).square().sum().backward()
        grown = model.ms_embed[0].proj.weight if fusion == "sum" else model.ms_fuse.weight
        assert grown.grad.abs().sum() > 0


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_a_stem_of_a_timm_model_is_the_checkpoints(
    fusion: str, timm: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, images = tmdeploy.add_scales(_timm(timm), [16, 32], fusion=fusion), tiny_images()
    _shake(model)
    tmdeploy.patch(model, "mstm", layers=[0, 1])
    save_checkpoint(tmp_path / "ms.pt", model)
    ours, loaded = load_model(tmp_path / "ms.pt")
    assert (loaded.config.scales, loaded.config.fusion) == ((16, 32), fusion)
    path = tmdeploy.export(model, tmp_path / "ms.onnx").path
    with torch.no_grad():
        (got,) = open_session(path).run(None, {"images": images.numpy()})
        np.testing.assert_allclose(got, model(images), atol=1e-4)
        torch.testing.assert_close(ours(images), unpatch(model)(images), atol=1e-5, rtol=1e-5)
    shown = " ".join(run(capsys, "inspect", path).out.split())
    how = {"sum": "summed", "concat": "concatenated, then one linear layer"}[fusion]
    assert f"multi-scale: patches of 8, 16, 32; bilinear to the grid, {how}" in shown


def test_what_cannot_have_scales(timm: ModuleType):
    with pytest.raises(UsageError, match="scales 24: each is a patch size that divides 64 x 64"):
        tmdeploy.add_scales(tiny_vit(), [24])
    with pytest.raises(UsageError, match="scales none"):
        tmdeploy.add_scales(tiny_vit(), [])
    with pytest.raises(UnsupportedModel, match="has a multi-scale stem already"):
        tmdeploy.add_scales(tiny_vit(scales=(16,)), [32])
    with pytest.raises(UnsupportedModel, match="Linear has no patch_embed"):
        tmdeploy.add_scales(nn.Linear(2, 2), [32])
    with pytest.raises(UnsupportedModel, match=r"returns a map of tokens.*dynamic_img_size=False"):
        tmdeploy.add_scales(_timm(timm, dynamic_img_size=True), [32])
