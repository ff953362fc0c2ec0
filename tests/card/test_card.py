import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import tmdeploy
import tmdeploy.card
from tests.conftest import EXAMPLES
from tests.tensorrt.engines import engine_file, full_bytes
from tmdeploy import load_card
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ModelCard
from tmdeploy.card.fields import first_problem
from tmdeploy.card.macs import model_macs
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import Recipe, make_recipe
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.graph.onnx_file import read_onnx

DEIT = VitConfig()
CARD = ModelCard(architecture=DEIT, recipe=make_recipe("tome", depth=12, tokens=197, prefix=1))


def test_what_follows_from_a_card():
    assert (CARD.num_prefix, CARD.num_classes, CARD.schedule_kind, CARD.reduces) == (1, 1000, "r", True)
    assert [step.tokens_out for step in CARD.steps()][:2] == [184, 171]
    macs = CARD.macs()
    assert macs == model_macs(DEIT, CARD.steps(), CARD.reduction.spec)
    assert (CARD.total_macs(), CARD.unmerged_macs) == (macs.total, model_macs(DEIT).total)
    assert CARD.total_macs([0] * 12) == CARD.unmerged_macs
    assert CARD.parse_schedule("8", "--r") == (8,) * 12
    assert "200 to 98 in block 0" in CARD.remarks([200] * 12)[0]
    with pytest.raises(UsageError, match="2 amounts for 12 reduction steps"):
        CARD.steps([1, 2])


def test_a_card_without_a_recipe_reduces_nothing():
    bare = ModelCard(architecture=DEIT)
    assert (bare.reduces, bare.steps(), bare.schedule_kind, bare.remarks()) == (False, (), None, ())
    assert bare.total_macs() == bare.unmerged_macs
    assert bare.reduction == Recipe(method="none")


def test_a_method_that_is_not_known_here_can_be_carried_but_not_followed():
    card = CARD.replace(recipe=Recipe(method="newest", layers=(0,), amounts=(3,)))
    assert card.reduces
    with pytest.raises(UsageError, match="unknown method 'newest'"):
        card.steps()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a",)}, "1 class names for 1000 classes"),
        ({"preprocessing": Preprocessing(image_size=(64, 64))}, "images of 64 x 64, the model takes 224 x 224"),
        ({"recipe": Recipe(method="tome", layers=(12,), amounts=(1,))}, "a reduction step in block 12 of 12 blocks"),
        ({"recipe": Recipe(method="tome", layers=(-1,), amounts=(1,))}, "a reduction step in block -1"),
        ({"recipe": Recipe(method="tome", layers=(0,), amounts=(2**31,))}, "beyond any number of tokens"),
    ],
)
def test_what_contradicts_itself_is_no_card(changes: dict, message: str):
    with pytest.raises(ValidationError) as caught:
        CARD.replace(**changes)
    assert message in first_problem(caught.value)


def test_every_artifact_has_the_same_card(digits_onnx: Path, tmp_path: Path):
    checkpoint, exported = load_card(EXAMPLES / "digits_tome.pt"), load_card(digits_onnx)
    assert checkpoint is not None
    # the example is older than ToMe's option `pool`; what a file was made with does not depend on a later default
    assert exported == checkpoint.replace(recipe=exported.recipe)
    assert exported.reduction.spec == checkpoint.reduction.spec
    assert exported.reduction.options == {"prop_attn": True, "weight": "size", "pool": "size"}
    engine = engine_file(tmp_path, full_bytes(), model=read_onnx(digits_onnx)[1])
    assert load_card(engine) == exported
    assert load_card(EXAMPLES / "digits_tome.pt", image_size=64).architecture.image_size == (64, 64)
    assert load_card(Path(__file__).parents[1] / "fuzz" / "corpus" / "foreign.onnx") is None
    with pytest.raises(ArtifactError, match="no such file"):
        load_card(tmp_path / "absent.onnx")


def test_reading_the_card_of_a_file_needs_no_torch(digits_onnx: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tmdeploy import load_card\n"
        f"print(load_card({str(digits_onnx)!r}).reduction.method)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "tome\n"


def test_the_package_gives_its_types():
    for name in tmdeploy.card.__all__:
        assert getattr(tmdeploy.card, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = tmdeploy.card.Nothing
