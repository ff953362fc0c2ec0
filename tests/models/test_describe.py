import pytest
import torch

from tests.models.weights import SMALL
from tmdeploy.models.describe import stated_preprocessing


@pytest.mark.parametrize(("mode", "followed"), [("center", True), ("squash", True), ("border", False)])
def test_what_a_card_says_of_the_crop_is_followed_or_nothing_is(mode, followed):
    module = torch.nn.Identity()
    half = (0.5, 0.5, 0.5)
    module.pretrained_cfg = {"mean": half, "std": half, "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": mode}
    said = stated_preprocessing(module, SMALL)
    assert (said is not None) == followed
    if said is not None:
        assert (said.crop_mode, said.mean, said.image_size) == (mode, half, (32, 32))
