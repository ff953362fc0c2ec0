import pytest

from tmdeploy.card.schedule import (
    Step,
    inflect_r,
    kept_count,
    merged_count,
    parse_keep,
    parse_layers,
    parse_r,
    remarks,
    select_count,
)
from tmdeploy.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("13", (13,) * 12),
        ("26:0", (26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0)),  # methods.md 0.5, ToMe (13,-1)
        ("0:26", (0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23, 26)),
        ("8,8,4", (8, 8, 4) + (0,) * 9),
        ("0", (0,) * 12),
    ],
)
def test_parse_r(text: str, expected: tuple[int, ...]):
    assert parse_r(text, 12) == expected


def test_inflect_is_tomes_pair():
    assert inflect_r(13, -1, 12) == parse_r("26:0", 12)
    assert inflect_r(13, 1, 12) == parse_r("0:26", 12)
    assert inflect_r(13, 0, 12) == (13,) * 12
    assert inflect_r(8, -1, 1) == (16,)
    with pytest.raises(UsageError, match="between -1 and 1"):
        inflect_r(8, 2, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "not a whole number"),
        ("1.5", "not a whole number"),
        ("-1", "cannot be negative"),
        ("8,-1", "cannot be negative"),
        ("1:2:3", "two ends"),
        (",".join(["1"] * 13), "13 values for 12 blocks"),
        ("", "not a whole number"),
        ("9" * 30, "no model has that many tokens"),
    ],
)
def test_parse_r_refuses(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_r(text, 12)


def _lengths(tokens: int, amounts: tuple[int, ...], step) -> list[int]:
    out = []
    for amount in amounts:
        tokens = step(tokens, amount)
        out.append(tokens)
    return out


def test_tome_lengths_of_the_paper():
    """methods.md 0.5: r=16 is clamped to 10 in the last layer."""

    def merge(tokens: int, r: int) -> int:
        return merged_count(tokens, 1, r)

    assert _lengths(197, (13,) * 12, merge) == [184, 171, 158, 145, 132, 119, 106, 93, 80, 67, 54, 41]
    assert _lengths(197, (16,) * 12, merge)[-3:] == [37, 21, 11]
    assert _lengths(197, (1000,) * 12, merge)[-1] == 2
    assert merge(2, 5) == 2


@pytest.mark.parametrize(
    ("rate", "fuse", "expected"),
    [
        ("0.9", True, [179, 163, 148]),
        ("0.8", True, [159, 129, 105]),
        ("0.7", True, [140, 100, 72]),
        ("0.6", True, [120, 74, 46]),
        ("0.5", True, [100, 52, 28]),
        ("0.7", False, [139, 98, 69]),
    ],
)
def test_keep_rates_give_the_published_lengths(rate: str, fuse: bool, expected: list[int]):
    """methods.md 0.5"""
    keep = parse_keep(rate, 3, 197, 1, fuse=fuse)
    assert _lengths(197, keep, lambda tokens, k: select_count(tokens, 1, k, fuse=fuse)) == expected


def test_keep_counts_and_rates_can_differ_by_stage():
    assert parse_keep("137,96,67", 3, 197, 1, fuse=False) == (137, 96, 67)
    assert parse_keep("0.9,0.8,0.7", 3, 197, 1, fuse=False) == (177, 142, 100)
    assert parse_keep("1.0", 3, 197, 1, fuse=True) == (196, 196, 196)
    assert parse_keep("1", 3, 197, 1, fuse=True) == (1, 1, 1)  # a count, as there is no point


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0", "above 0 and at most 1"),
        ("1.5", "above 0 and at most 1"),
        ("0", "at least one patch token is kept"),
        ("-1", "cannot be negative"),
        ("-0.5", "above 0"),
        ("a", "not a number"),
        ("0.7,0.6", "2 values for 3 reduction steps"),
        ("0.9,0.8,1", "mixes rates and counts. Write rates with a point .1.0 keeps all., or give counts only"),
        ("100,0.5,20", "mixes rates and counts"),
        ("nan", "not a number"),
        ("1e999", "not a number"),
        ("9" * 30, "no model has that many tokens"),
    ],
)
def test_parse_keep_refuses(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_keep(text, 3, 197, 1, fuse=False)


def test_kept_count_is_clipped_to_what_is_possible():
    assert kept_count(197, 1, 0) == 2
    assert kept_count(197, 1, 500) == 197
    assert select_count(197, 1, 195, fuse=True) == 197  # one fused
    assert select_count(197, 1, 196, fuse=True) == 197  # none left over


def _remarks(kind: str, amounts: tuple[int, ...], tokens: int, *, depth: int = 12, text: str | None = None) -> str:
    blocks = range(depth) if kind == "r" else (3, 6, 9)
    steps = []
    for block, amount in zip(blocks, amounts, strict=True):
        after = merged_count(tokens, 1, amount) if kind == "r" else select_count(tokens, 1, amount, fuse=False)
        steps.append(Step(block, tokens, after, amount))
        tokens = after
    return " | ".join(remarks(steps, kind, prefix=1, depth=depth, text=text))  # type: ignore[arg-type]


def test_what_the_papers_do_needs_no_remark_but_a_clipped_block():
    assert _remarks("r", (13,) * 12, 197) == ""
    assert _remarks("keep", (138, 97, 68), 197) == ""
    assert _remarks("keep", (14, 14, 14), 197) == ""
    clipped = "r is clipped, as a block merges at most half of its patch tokens: "
    assert _remarks("r", (16,) * 12, 197) == f"{clipped}16 to 10 in block 11"
    assert _remarks("r", (8,) * 24, 197, depth=24) == f"{clipped}8 to 6 in block 23"  # ToMe's ViT-L


def test_what_is_clipped_or_leaves_little_is_said():
    assert _remarks("r", (5000,) * 12, 197) == (
        "r is clipped, as a block merges at most half of its patch tokens: 5000 to 98 in block 0, "
        "5000 to 49 in block 1, 5000 to 24 in block 2 and in 9 more | few tokens: "
        "from block 4 on 7 of 196 patch tokens are left; choose a smaller r unless that is meant"
    )
    patch_32 = _remarks("r", (13,) * 12, 50)
    assert "13 to 11 in block 2" in patch_32
    assert "from block 4 on 3 of 49 patch tokens are left" in patch_32
    assert _remarks("keep", (500, 138, 97), 197) == (
        "keep is clipped, as there are no more patch tokens: 500 to 196 in block 3"
    )


def test_keep_1_is_said_to_be_one_token():
    said = _remarks("keep", (1, 1, 1), 197, text="1")
    assert said.startswith("keep 1 is a count, one patch token; 1.0 keeps all | few tokens: from block 3 on 1 of 196")
    assert _remarks("keep", (196, 196, 196), 197, text="1.0") == ""


@pytest.mark.parametrize(("text", "message"), [("12", "numbered 0 to 11"), ("3,3", "once"), ("6,3", "ascending")])
def test_parse_layers_refuses(text: str, message: str):
    assert parse_layers("3,6,9", 12) == (3, 6, 9)
    with pytest.raises(UsageError, match=message):
        parse_layers(text, 12)
