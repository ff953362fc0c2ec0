import torch

from tests.models.weights import small_model, small_weights
from tmdeploy.models.official_names import to_timm_names
from tmdeploy.models.vit import VisionTransformer


def test_timms_names_stay():
    weights = small_weights(registers=2)
    assert to_timm_names(weights).keys() == weights.keys()


def test_deit_three_gammas_become_layer_scale():
    weights = small_weights(layer_scale=True)
    official = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): tensor for name, tensor in weights.items()
    }
    assert "blocks.1.gamma_2" in official
    assert to_timm_names(official).keys() == weights.keys()


def test_dinov2_registers_compute_what_the_official_order_does(timm):
    # official: the position of the class token is added to it, registers come after positions were added
    model = small_model(registers=3)
    official = {name: tensor for name, tensor in model.state_dict().items() if name not in ("reg_token", "pos_embed")}
    official["register_tokens"] = model.reg_token.detach()
    official["mask_token"] = torch.zeros(1, 64)
    official["pos_embed"] = torch.randn(1, 1 + 16, 64)
    expected = timm.models.vision_transformer._convert_dinov2(dict(official), model)
    converted = to_timm_names(official)
    assert converted.keys() == expected.keys()
    other = VisionTransformer(model.config.replace(pos_embed_prefix=False)).eval()
    other.load_state_dict(converted, strict=True)
    images = torch.randn(1, 3, 32, 32)
    patches = model.patch_embed(images).flatten(2).transpose(1, 2)
    x = torch.cat([model.cls_token, patches], dim=1) + official["pos_embed"]
    torch.testing.assert_close(other.embed(images), torch.cat([x[:, :1], model.reg_token, x[:, 1:]], dim=1))


def test_what_inference_never_uses_is_dropped():
    weights = small_weights()
    idle = {"mask_token": torch.zeros(1, 64), "blocks.0.attn.out_zero_mask": torch.zeros(1, 17)}
    assert to_timm_names({**weights, **idle}).keys() == weights.keys()
