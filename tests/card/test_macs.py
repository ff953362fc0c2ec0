"""The formula against published numbers (methods.md, 0.4 and 0.5): GMACs to the last digit printed."""

import pytest

from tmdeploy.card.arch import VitConfig, named_config
from tmdeploy.card.macs import model_macs
from tmdeploy.card.recipe import Recipe, make_recipe


def _giga(arch: str, method: str = "none", **schedule: str) -> float:
    config = named_config(f"deit_{arch}_patch16_224")
    recipe = make_recipe(method, depth=config.depth, tokens=config.tokens, prefix=config.num_prefix, **schedule)
    return model_macs(config, recipe.steps(config.tokens, config.num_prefix)).total / 1e9


@pytest.mark.parametrize(("arch", "want"), [("tiny", 1.254), ("small", 4.599), ("base", 17.564)])
def test_plain_models(arch: str, want: float):
    assert _giga(arch) == pytest.approx(want, abs=5e-4)


@pytest.mark.parametrize(
    ("method", "schedule", "wants"),
    [
        ("tome", {"r": "8"}, (0.92, 3.42, 13.10)),
        ("tome", {"r": "13"}, (0.73, 2.70, 10.37)),
        ("tome", {"r": "16"}, (0.62, 2.29, 8.77)),
        ("evit", {"keep": "0.9"}, (1.09, 4.02, 15.40)),
        ("evit", {"keep": "0.8"}, (0.94, 3.48, 13.33)),
        ("evit", {"keep": "0.7"}, (0.82, 3.03, 11.61)),
        ("topk", {"keep": "0.7"}, (0.81, 3.00, 11.49)),
    ],
)
def test_published_schedules(method: str, schedule: dict[str, str], wants: tuple[float, ...]):
    for arch, want in zip(("tiny", "small", "base"), wants, strict=True):
        assert _giga(arch, method, **schedule) == pytest.approx(want, abs=0.0051)


def test_the_reductions_own_arithmetic_is_counted_apart():
    config = named_config("deit_small_patch16_224")
    recipe = Recipe(method="tome", layers=(0,), amounts=(13,))
    steps = recipe.steps(config.tokens, config.num_prefix)
    bare, with_spec = model_macs(config, steps), model_macs(config, steps, recipe.spec)
    assert bare.total == with_spec.total
    assert bare.reduction == 0
    assert with_spec.reduction == 98 * 98 * 64 + 13 * 384


def test_scales_and_two_heads_add_what_they_cost():
    plain = VitConfig(image_size=(64, 64), patch_size=8, width=48, depth=2, heads=3, mlp_width=96, num_classes=10)
    two_heads = plain.model_copy(update={"distilled": True})
    assert model_macs(two_heads).head == 2 * model_macs(plain).head == 2 * 48 * 10
    assert model_macs(plain).stem == 64 * 48 * 3 * 64
