"""The line that says how a model reduces its tokens."""

from __future__ import annotations

from tests.vits import TINY
from tmdeploy.card.card import ModelCard
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import Recipe
from tmdeploy.report.tables.export import method_text


def _text(method: str, **options: str) -> str:
    recipe = Recipe(method=method, options=options, layers=(0, 1), amounts=(4, 4))
    preprocessing = Preprocessing(image_size=TINY.image_size)
    return method_text(ModelCard(architecture=TINY, recipe=recipe, preprocessing=preprocessing))


def test_options_that_are_not_the_default_are_named():
    assert _text("tome", weight="mean", pool="size") == "tome, r 4, in blocks 0, 1, weight=mean"


def test_what_is_not_known_here_is_named_as_it_is():
    assert _text("tome", weight="True") == "tome, weight=True"
    assert _text("dynamic", ratio="0.7") == "dynamic, ratio=0.7"
