import pytest
import torch
import torch.nn.functional as F

from tests.models.weights import small_model, small_weights
from tmdeploy.models.stem import fuse_scales


def test_extra_scales_are_named_and_shaped_as_documented():
    weights = small_weights(scales=(16, 4), fusion="concat")
    assert weights["ms_embed.0.proj.weight"].shape == (64, 3, 16, 16)
    assert weights["ms_embed.1.proj.bias"].shape == (64,)
    assert weights["ms_fuse.weight"].shape == (64, 3 * 64)
    assert not any(name.startswith("ms_fuse") for name in small_weights(scales=(16,)))


@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_scales_are_fused_before_class_token_and_position(fusion, resample):
    model = small_model(scales=(16, 32), fusion=fusion, resample=resample)
    images = torch.randn(2, 3, 32, 32)
    fine = model.patch_embed.proj(images)
    maps = [fine]
    for branch in model.ms_embed:
        corners = {"align_corners": False} if resample == "bilinear" else {}
        maps.append(F.interpolate(branch.proj(images), size=(4, 4), mode=resample, **corners))
    if fusion == "sum":
        tokens = (maps[0] + maps[1] + maps[2]).flatten(2).transpose(1, 2)
    else:
        tokens = torch.cat(maps, dim=1).flatten(2).transpose(1, 2) @ model.ms_fuse.weight.T + model.ms_fuse.bias
    expected = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1) + model.pos_embed
    torch.testing.assert_close(model.embed(images), expected)


def test_nearest_repeats_a_coarse_patch_over_the_fine_ones_it_covers():
    fine = torch.zeros(1, 2, 4, 4)
    coarse = torch.arange(8.0).reshape(1, 2, 2, 2)
    tokens = fuse_scales([fine, coarse], None, "nearest")
    assert tokens.shape == (1, 16, 2)
    assert tokens[0, :, 0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
