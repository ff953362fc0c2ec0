import pytest

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import UsageError
from tmdeploy.models.assume import Assumed, assumption, assumption_notes


def test_what_is_typed_and_what_is_programmed_are_the_same():
    typed = Assumed.parse(["act=quick-gelu", "heads=12", "mean=0.5", "std=0.1,0.2,0.3", "grid=16x8", "norm-eps=1e-5"])
    programmed = {"act": "quick_gelu", "heads": 12, "mean": (0.5, 0.5, 0.5), "std": (0.1, 0.2, 0.3), "grid": (16, 8)}
    assert typed == Assumed.parse({**programmed, "norm_eps": 1e-5})
    assert (typed.act, typed.heads, typed.grid) == ("quick_gelu", 12, (16, 8))


def test_nothing_is_said_by_default():
    assert Assumed.parse(()).given(Assumed.model_fields) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["act"], "--assume act: not of the form KEY=VALUE"),
        (["=gelu"], "--assume =gelu: not of the form KEY=VALUE"),
        (["act="], "--assume act=: not of the form KEY=VALUE"),
        (["depth=3"], "no key 'depth'. Use one of: heads, act, norm_placement, pool"),
        (["act=gelu", "act=relu"], "'act' is given twice"),
        (["act=swish"], "act: Input should be 'gelu', 'gelu_tanh'"),
        (["heads=six"], "--assume heads"),
        (["heads=0"], "--assume heads"),
        (["norm_eps=nan"], "--assume norm_eps"),
        (["mean=0.5,0.5"], "--assume mean"),
        (["mean=inf"], "--assume mean"),
        (["std=0"], "--assume std"),
        (["crop_pct=0.001"], "crop_pct: Input should be greater than or equal to 0.1"),
        (["grid=16"], "--assume grid"),
        (["grid=0x4"], "--assume grid"),
        (["pos_embed_resize=nearest"], "'bicubic_antialias' or 'bicubic'"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, message):
    with pytest.raises(UsageError) as caught:
        Assumed.parse(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_num_heads_is_heads():
    assert Assumed.parse((), num_heads=3).heads == 3
    assert Assumed.parse(["heads=3"], num_heads=3).heads == 3
    with pytest.raises(UsageError, match="--num-heads 3 and --assume heads=4 contradict each other"):
        Assumed.parse(["heads=4"], num_heads=3)


def test_a_file_that_says_what_it_is_is_not_contradicted():
    config, images = VitConfig(), Preprocessing()
    Assumed.parse(["heads=6", "mean=0.485,0.456,0.406", "grid=14x14", "pos_embed_resize=bicubic"]).check_agrees(
        config, images
    )
    with pytest.raises(UsageError, match=r"says that mean is 0\.485,0\.456,0\.406, not 0\.5,0\.5,0\.5\. Leave it out"):
        Assumed.parse(["mean=0.5"]).check_agrees(config, images)


def test_notes_group_by_reason_and_name_what_differs():
    entries = [
        assumption("heads", 6, "a", {"b": 12, "c": 6}),
        assumption("mean", (0.5, 0.5, 0.5), "a", {"b": (0.1, 0.2, 0.3), "c": (0.5, 0.5, 0.5)}),
        assumption("act", "relu", "--assume", {}),
        assumption("grid", (4, 8), "the square one", {}),
    ]
    assumed, rivals = assumption_notes(entries)
    listed = "heads 6, mean 0.5,0.5,0.5 (a); grid 4x8 (the square one)"
    assert assumed.startswith(f"assumed, since the weights do not show it: {listed}. Prove it with export --against")
    assert rivals.startswith("known models of the same shapes that differ: b (heads 12, mean 0.1,0.2,0.3). If it is")
    assert assumption_notes(entries[2:3]) == ()
    # what a comparison with the owner's model has shown is no assumption any more; how images are prepared still is
    left, named = assumption_notes(entries, proven=True)
    assert left.startswith("assumed, since the weights do not show it: mean 0.5,0.5,0.5 (a). No comparison of models")
    assert "b (mean 0.1,0.2,0.3)" in named
