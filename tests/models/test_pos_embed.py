import pytest
import torch

from tmdeploy.models.pos_embed import resize_pos_embed


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize("new_grid", [(7, 7), (14, 14), (3, 9), (24, 24)])
def test_it_is_timms_resampling(timm, num_prefix, new_grid):
    position = torch.randn(1, num_prefix + 14 * 14, 12, generator=torch.Generator().manual_seed(0))
    theirs = timm.layers.resample_abs_pos_embed(
        position, new_size=list(new_grid), old_size=[14, 14], num_prefix_tokens=num_prefix
    )
    ours = resize_pos_embed(position, old_grid=(14, 14), new_grid=new_grid, num_prefix=num_prefix)
    assert ours.shape == (1, num_prefix + new_grid[0] * new_grid[1], 12)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_prefix_stays_and_half_precision_is_interpolated_in_float32():
    position = torch.randn(1, 2 + 16, 8)
    half = resize_pos_embed(position.half(), old_grid=(4, 4), new_grid=(6, 6), num_prefix=2)
    assert half.dtype is torch.float16
    assert torch.equal(half[:, :2], position[:, :2].half())
    full = resize_pos_embed(position.half().float(), old_grid=(4, 4), new_grid=(6, 6), num_prefix=2)
    assert torch.equal(half, full.half())


def test_the_same_grid_changes_nothing():
    position = torch.randn(1, 17, 8)
    assert resize_pos_embed(position, old_grid=(4, 4), new_grid=(4, 4), num_prefix=1) is position


def test_a_wrong_grid_is_refused():
    with pytest.raises(ValueError, match="17 positions, not 26"):
        resize_pos_embed(torch.zeros(1, 17, 8), old_grid=(5, 5), new_grid=(4, 4), num_prefix=1)
