"""One vocabulary for schedules in every command."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tmdeploy.api import schedules as option
from tmdeploy.backends import open_runner
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ModelCard
from tmdeploy.card.recipe import make_recipe
from tmdeploy.errors import TmdeployWarning, UsageError

CHECKPOINT, IMAGE = EXAMPLES / "digits_tome.pt", EXAMPLES / "digits" / "3_0.png"


def _deit(method: str) -> option.Reducer:
    card = ModelCard(architecture=VitConfig(), recipe=make_recipe(method, depth=12, tokens=197, prefix=1))
    return option.Reducer(f"{method}.onnx", card, fixed=False)


TOME, EVIT, NONE = map(_deit, ("tome", "evit", "none"))
FOREIGN = option.Reducer("foreign.onnx", None, fixed=False)


def test_every_command_that_runs_a_schedule_takes_all_three():
    for name in ("export", "build", "validate", "bench", "infer", "inspect", "visualize"):
        command = getattr(__import__(f"tmdeploy_cli.{name}", fromlist=[name]), name)
        assert {"r", "keep", "schedule"} <= set(inspect.signature(command).parameters), name


@pytest.mark.parametrize(
    ("model", "asked", "amounts"),
    [
        (TOME, ("--r", "26:0"), (26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0)),
        (TOME, ("--schedule", "8,8,4"), (8, 8, 4) + (0,) * 9),
        (EVIT, ("--keep", "0.7"), (138, 98, 70)),
        (EVIT, ("--schedule", "1.0"), (196, 196, 196)),
        (EVIT, ("--keep", "138,97,68"), (138, 97, 68)),
    ],
)
def test_the_grammar_of_export_holds_at_run_time(
    model: option.Reducer, asked: tuple[str, str], amounts: tuple[int, ...]
):
    assert option.amounts_of(option.Asked(*asked), model) == amounts  # and no warning


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        (TOME, ("--keep", "0.7"), "method 'tome' takes no --keep. Use --r"),
        (EVIT, ("--r", "8"), "method 'evit' takes no --r. Use --keep"),
        (EVIT, ("--keep", "0.9,0.8,1"), "mixes rates and counts. Write rates with a point"),
        (TOME, ("--schedule", "0.7"), "--schedule 0.7: not a whole number"),
        (NONE, ("--r", "8"), "none.onnx reduces no tokens, so it takes no --r"),
        (FOREIGN, ("--schedule", "8"), "foreign.onnx reduces no tokens, so it takes no --schedule"),
        (TOME._replace(fixed=True), ("--r", "8"), "fixed schedule, so it takes no --r. Export with --runtime-r"),
    ],
)
def test_what_a_model_cannot_run_with_is_refused(model: option.Reducer, asked: tuple[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        option.amounts_of(option.Asked(*asked), model)


def test_what_is_clipped_is_said():
    clipped = "tome.onnx: r is clipped, as a block merges at most half of its patch tokens: 16 to 10 in block 11$"
    with pytest.warns(TmdeployWarning, match=clipped):
        assert option.amounts_of(option.Asked("--r", "16"), TOME) == (16,) * 12
    with pytest.warns(TmdeployWarning) as told:
        option.amounts_of(option.Asked("--keep", "1"), EVIT)
    assert "evit.onnx: keep 1 is a count, one patch token; 1.0 keeps all" in [str(one.message) for one in told]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (13, ["13"]),
        (0, ["0"]),
        (0.7, ["0.7"]),
        ("26:0", ["26:0"]),
        ([8, 8, 4], ["8,8,4"]),
        (["8", "26:0"], ["8", "26:0"]),
        ([[8, 8], [4, 4], "13"], ["8,8", "4,4", "13"]),
        (None, []),
    ],
)
def test_numbers_are_one_schedule_and_texts_or_lists_one_each(given: object, asked: list[str]):
    assert [one.text for one in option.asked_for(given, None, None)] == asked


def test_each_of_several_models_takes_what_is_for_it(digits_onnx: Path):
    runner = open_runner(digits_onnx)
    wanted = option.ForEach(option.asked_for(["8", "999"], None, None))
    with pytest.warns(TmdeployWarning) as told:
        assert wanted(runner) == wanted(runner) == ((8,) * 6, (999,) * 6)
    assert [str(one.message).count("r is clipped") for one in told].count(1) == 1
    wanted.check()
    both = option.ForEach(option.asked_for(["8"], ["0.7"], None))
    assert both(runner) == ((8,) * 6,)
    with pytest.raises(UsageError, match="method 'tome' takes no --keep. Use --r"):
        both.check()
    assert option.ForEach(option.asked_for(["8", "8:8"], None, ["8"]))(runner) == ((8,) * 6,)
    with pytest.raises(UsageError, match="--r 8: no model here reduces tokens"):
        option.ForEach(option.asked_for("8", None, None)).check()


@pytest.mark.parametrize("command", ["infer", "bench", "validate", "visualize"])
def test_commands_refuse_the_wrong_one(command: str, digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    models = [digits_onnx, digits_onnx] if command == "validate" else [digits_onnx]
    images = [IMAGE] if command in {"infer", "visualize"} else []
    done = run(capsys, command, *models, *images, "--keep", "0.7")
    assert (done.code, done.err) == (2, "error: method 'tome' takes no --keep. Use --r.\n")


def test_a_checkpoint_without_a_method_says_which_option_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    document = torch.load(CHECKPOINT, weights_only=True)
    plain = tmp_path / "plain.pth"
    torch.save({"model": document["state_dict"]}, plain)
    done = run(capsys, "export", plain, "--num-heads", 3, "--r", "8")
    assert done.code == 2
    assert done.err == (
        "error: method 'none' reduces no tokens, so it takes no --r. Add --method tome, or leave it out.\n"
    )


def test_export_clips_and_warns_as_running_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "export", CHECKPOINT, "-o", tmp_path / "x.onnx", "--schedule", "200", "--no-verify")
    assert done.code == 0
    assert "warning: r is clipped, as a block merges at most half of its patch tokens: 200 to 32 in block 0" in done.err
    assert "warning: few tokens: from block 4 on 2 of 64 patch tokens" in done.err
    shown = run(capsys, "inspect", tmp_path / "x.onnx").out
    assert "65" in shown
    assert "33" in shown
    rule = "input 'r', int64 [6]; 0 merges nothing; below 0 is 0, and what is above half of a block's patch tokens is"
    assert rule in " ".join(shown.split())
