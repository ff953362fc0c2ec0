import pytest

from tmdeploy.card.recipe import Recipe, make_recipe
from tmdeploy.errors import UsageError

DEIT = {"depth": 12, "tokens": 197, "prefix": 1}


def test_defaults_are_the_methods_own():
    assert make_recipe("tome", **DEIT).amounts == (13,) * 12
    evit = Recipe(method="evit", options={"score": "cls"}, layers=(3, 6, 9), amounts=(138, 98, 70))
    assert make_recipe("evit", **DEIT) == evit
    assert make_recipe("topk", **DEIT).amounts == (138, 97, 68)
    assert make_recipe("none", **DEIT).amounts == ()


def test_steps_follow_the_counts():
    steps = make_recipe("evit", keep="0.7", **DEIT).steps(197, 1)
    assert [(step.block, step.tokens_in, step.tokens_out) for step in steps] == [
        (3, 197, 140),
        (6, 140, 100),
        (9, 100, 72),
    ]
    override = make_recipe("tome", **DEIT).steps(197, 1, [16] * 12)
    assert override[-1].tokens_out == 11


def test_a_schedule_counts_what_the_method_counts():
    assert make_recipe("tome", schedule="26:0", **DEIT) == make_recipe("tome", r="26:0", **DEIT)
    assert make_recipe("evit", schedule="0.7", **DEIT) == make_recipe("evit", keep="0.7", **DEIT)


def test_what_is_impossible_is_clipped_as_in_the_official_code():
    recipe = make_recipe("tome", r="200", **DEIT)
    assert [step.tokens_out for step in recipe.steps(197, 1)][:3] == [99, 50, 26]
    assert "200 to 98 in block 0" in recipe.remarks(tokens=197, prefix=1, depth=12)[0]
    assert make_recipe("topk", keep="500", **DEIT).steps(197, 1)[0].tokens_out == 197
    assert make_recipe("none", **DEIT).remarks(tokens=197, prefix=1, depth=12) == ()


def test_default_layers_beyond_a_shallow_model_are_left_out():
    assert make_recipe("evit", depth=8, tokens=65, prefix=1).layers == (3, 6)
    with pytest.raises(UsageError, match="no block to reduce in: the model has 3"):
        make_recipe("evit", depth=3, tokens=65, prefix=1)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("tomee", {}, "unknown method 'tomee'. Did you mean 'tome'"),
        ("xyz", {}, "Known: evit, mstm, none, tome, topk"),
        ("tome", {"keep": "0.7"}, "takes no --keep. Use --r"),
        ("evit", {"r": "13"}, "takes no --r. Use --keep"),
        ("none", {"r": "13"}, "reduces no tokens, so it takes no --r. Add --method tome, or leave it out"),
        ("none", {"keep": "0.7"}, "takes no --keep. Add --method evit"),
        ("none", {"schedule": "8"}, "takes no --schedule. Add --method tome"),
        ("tome", {"r": "13", "schedule": "8"}, "--r and --schedule say the same. Give one of them"),
        ("tome", {"schedule": "0.7"}, "--schedule 0.7: not a whole number"),
        ("evit", {"schedule": "0.7,0.6"}, "--schedule 0.7,0.6: 2 values for 3 reduction steps"),
        ("none", {"layers": "3"}, "takes no --layers"),
        ("tome", {"r": "-3"}, "--r -3: cannot be negative"),
        ("tome", {"options": {"speed": "1"}}, "has no option 'speed'. Its options: prop_attn, weight"),
        ("tome", {"options": {"prop_attn": "maybe"}}, "Choose true or false"),
        ("mstm", {"options": {"score": "luck"}}, "Choose one of: cls, cls_value, ats"),
        ("evit", {"options": {"a": 1}}, "Its options: score"),
    ],
)
def test_what_cannot_be_meant_is_refused(method: str, arguments: dict, message: str):
    with pytest.raises(UsageError, match=message):
        make_recipe(method, **DEIT, **arguments)


def test_options_are_kept_with_their_types():
    options = {"prop_attn": False, "weight": "size", "pool": "size"}
    assert make_recipe("tome", options={"prop_attn": "off"}, **DEIT).options == options
    recipe = make_recipe("mstm", options={"weight": "exp_sim"}, **DEIT)
    assert recipe.options["weight"] == "exp_sim"
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_wrong_number_of_amounts_is_refused():
    with pytest.raises(UsageError, match="2 amounts for 12 reduction steps"):
        make_recipe("tome", **DEIT).steps(197, 1, [1, 2])
    with pytest.raises(UsageError, match="r is -4 in block 0"):
        make_recipe("tome", **DEIT).steps(197, 1, [-4] * 12)
