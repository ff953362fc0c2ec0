from pathlib import Path

import pytest

from tests.models.weights import SMALL
from tmdeploy.card.card import ModelCard
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import make_recipe
from tmdeploy.errors import CheckpointError
from tmdeploy.models.document import dump, parse

HERE = Path("model.pt")
GOOD = ModelCard(
    architecture=SMALL,
    recipe=make_recipe("tome", depth=2, tokens=17, prefix=1, r="2"),
    preprocessing=Preprocessing(image_size=(32, 32)),
    class_names=("a", "b", "c", "d", "e"),
)


def test_what_is_dumped_is_parsed():
    document = dump(GOOD)
    assert (document["format"], document["version"]) == ("tmdeploy", 2)
    assert parse(document, HERE) == GOOD


def damaged(**changes):
    document = dump(GOOD)
    return {**document, "card": {**document["card"], **changes}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**dump(GOOD), "version": 3}, "description has version 3, and this tmdeploy reads up to 2.*upgrade this one"),
        ({**dump(GOOD), "version": "x"}, r"damaged \(version: Input should be 2\)"),
        ({**dump(GOOD), "version": 10**5000}, r"damaged \(version: "),
        ({**dump(GOOD), "version": [1] * 10000}, r"damaged \(version: "),
        ({**dump(GOOD), "version": "1" * 10000}, r"damaged \(version: "),
        ({**dump(GOOD), "version": 0}, r"damaged \(version: "),
        (damaged(**{"a" * 10000: 1}), "damaged .*aaa"),
        ({"format": "tmdeploy", "version": 1}, "damaged.*card: Field required"),
        (damaged(architecture={"width": "wide"}), r"damaged \(card.architecture.vit.width"),
        (damaged(architecture={"heads": 7}), "not a multiple of 7 attention heads"),
        (damaged(surprise=1), "damaged.*surprise"),
        (damaged(class_names=["a"]), r"damaged \(card: 1 class names for 5 classes"),
        (damaged(recipe={"method": "nope", "layers": [0], "amounts": [1]}), "unknown method 'nope'"),
        (damaged(recipe={"method": "tome", "layers": [9], "amounts": [1]}), "block 9 of 2 blocks"),
        (damaged(recipe={"method": "tome", "layers": [0, 1], "amounts": [1]}), "damaged .*1 amounts for 2 layers"),
        (damaged(recipe={"method": "tome", "layers": [0, 0], "amounts": [1, 1]}), "ascending order, each once"),
        (
            damaged(recipe={"method": "tome", "layers": [0], "amounts": [10**5000]}),
            "is negative, or beyond any number of tokens",
        ),
        (damaged(preprocessing={"image_size": [32, 32], "crop_pct": 0.001}), "crop_pct: Input should be greater"),
        (damaged(preprocessing={"image_size": [32, 32], "std": [0, 1, 1]}), "std.0: Input should be greater than 0"),
        (damaged(preprocessing={"image_size": [32, 32], "mean": [float("nan")] * 3}), "mean.0: .*finite"),
        (damaged(architecture={"norm_eps": 10**400}), "norm_eps"),
        (damaged(preprocessing={"image_size": [64, 64]}), "images of 64 x 64, the model takes 32 x 32"),
    ],
)
def test_damage_is_named(document, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        parse(document, HERE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2200
