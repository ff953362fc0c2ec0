import pytest

from tmdeploy.errors import UsageError
from tmdeploy.schedule import (
    check_r,
    inflect_r,
    kept_count,
    merged_count,
    parse_keep,
    parse_layers,
    parse_r,
    select_count,
)


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
    ],
)
def test_parse_r_refuses(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_r(text, 12)


def test_check_r_refuses_what_no_block_can_do():
    check_r((98,), 197, 1)
    with pytest.raises(UsageError, match=r"r is 99 in block 0.*at most 98.*between 0 and 98"):
        check_r((99,), 197, 1)
    with pytest.raises(UsageError, match="r is -1 in block 1"):
        check_r((0, -1), 197, 1)


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0", "above 0 and at most 1"),
        ("1.5", "above 0 and at most 1"),
        ("0", "above 0"),
        ("-0.5", "above 0"),
        ("197", "between 1 and 196"),
        ("a", "not a number"),
        ("0.7,0.6", "2 values for 3 stages"),
        ("nan", "between 1 and 196|above 0|not a number"),
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


@pytest.mark.parametrize(("text", "message"), [("12", "numbered 0 to 11"), ("3,3", "once"), ("6,3", "ascending")])
def test_parse_layers_refuses(text: str, message: str):
    assert parse_layers("3,6,9", 12) == (3, 6, 9)
    with pytest.raises(UsageError, match=message):
        parse_layers(text, 12)
