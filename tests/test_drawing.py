from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.validate.traces import batch, match_step, metric_of, score_of, select_step
from tmdeploy.backends.base import StepTrace
from tmdeploy.drawing import DROPPED, compose, draw_groups, drawing_names, fused_slots, side_by_side


def _chain(seed: int, tokens: int, removed: list[int]) -> list[StepTrace]:
    steps = []
    for number, wanted in enumerate(removed):
        amount = min(wanted, (tokens - 1) // 2)
        steps.append(match_step(metric_of(tokens, seed + number), tokens - amount, block=number))
        tokens -= amount
    return steps


@given(
    seed=st.integers(0, 1000), tokens=st.integers(3, 30), removed=st.lists(st.integers(0, 6), min_size=1, max_size=4)
)
def test_compose_follows_every_patch(seed: int, tokens: int, removed: list[int]):
    steps = _chain(seed, tokens, removed)
    (groups,) = compose(steps, tokens=tokens, num_prefix=1)
    for patch in range(1, tokens):
        place = patch
        for step in steps:
            place = int(step.map[0, place])
        assert groups[patch - 1] == place
    left = steps[-1].index.shape[1]
    assert set(groups.tolist()) == set(range(1, left))  # a merged token never vanishes


def test_dropped_patches_stay_dropped():
    first = select_step(score_of(9), 5)
    second = select_step(score_of(first.index.shape[1], 1), 3)
    (groups,) = compose([first, second], tokens=9, num_prefix=1)
    kept = [first.index[0, token] for token in second.index[0]]
    assert {patch + 1 for patch in np.flatnonzero(groups != DROPPED)} == {int(token) for token in kept if token}
    assert (groups == DROPPED).sum() == 8 - (second.index.shape[1] - 1)


def test_images_of_a_batch_have_their_own_groups():
    one, two = (match_step(metric_of(17, seed), 12) for seed in (0, 1))
    both = compose([batch(one, two)], tokens=17, num_prefix=1)
    for row, step in zip(both, (one, two), strict=True):
        assert (row == compose([step], tokens=17, num_prefix=1)[0]).all()


def test_no_step_leaves_every_patch_alone():
    assert compose([], tokens=5, num_prefix=1).tolist() == [[1, 2, 3, 4]]


def test_fused_tokens_are_followed_into_later_steps():
    first = select_step(score_of(9), 5, "fuse")
    slots = first.index.shape[1]
    assert fused_slots([first], tokens=9, num_prefix=1) == [{slots - 1}]
    score = np.arange(slots, dtype=np.float32)  # the fused token has the highest score: kept, first after the prefix
    second = select_step(score, 3, "drop")
    place = int(second.map[0, slots - 1])
    assert fused_slots([first, second], tokens=9, num_prefix=1) == [{place}]
    score[-1] = -1  # the lowest: dropped
    assert fused_slots([first, select_step(score, 3, "drop")], tokens=9, num_prefix=1) == [set()]


def test_groups_take_their_mean_colour_and_borders():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[:4, 4:], pixels[4:, :4], pixels[4:, 4:] = 100, 200, 40, 80
    groups = np.array([1, 1, 2, DROPPED])
    drawn = np.asarray(draw_groups(Image.fromarray(pixels), groups, (2, 2), zoom=4))
    assert drawn.shape == (32, 32, 3)
    assert (drawn[8, [8, 16, 24]] == 150).all()  # one group, no border between
    assert (drawn[24, 8] == 40).all()  # a single patch stays
    assert (drawn[24, 24] == 20).all()  # dropped: darkened
    assert drawn[16, 8].tolist() == [255, 170, 0]  # the border


def test_fused_groups_are_hatched():
    plain = Image.new("RGB", (8, 8), (120, 120, 120))
    drawn = np.asarray(draw_groups(plain, np.array([1, 1, 1, 1]), (2, 2), fused=frozenset({1}), zoom=4))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 2


def test_panels_stand_side_by_side():
    panels = [("left", Image.new("RGB", (40, 30), "red")), ("a long caption " * 9, Image.new("RGB", (40, 30), "blue"))]
    sheet = side_by_side(panels)
    assert sheet.width == 2 * 40 + 3 * 8
    assert sheet.getpixel((20, 40)) == (255, 0, 0)
    assert sheet.getpixel((70, 40)) == (0, 0, 255)


def test_other_plans_are_drawn_otherwise():
    step = match_step(metric_of(17), 12)
    other = replace(step, map=np.roll(step.map, 1, axis=1))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    drawn = [
        np.asarray(draw_groups(image, compose([one], tokens=17, num_prefix=1)[0], (4, 4))) for one in (step, other)
    ]
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(*drawn)


def test_every_drawing_has_a_name_of_its_own():
    paths = [
        Path(name) for name in ("a/cat.jpg", "b/cat.jpg", "dog.jpg", "dog.png", "Owl.jpg", "c/owl.png", "a-cat.jpg")
    ]
    names = drawing_names(paths)
    assert names == (
        "a-cat.jpg.png", "b-cat.png", "dog.jpg.png", "dog.png.png", "Owl.jpg.png", "owl.png.png", "a-cat.jpg-2.png",
    )  # fmt: skip
    assert drawing_names([Path("/x/cat.jpg"), Path("dog.jpg")]) == ("cat.png", "dog.png")
