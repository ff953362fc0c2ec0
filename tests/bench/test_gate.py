from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.report.test_bench import PAIR
from tmdeploy.bench.arm import Arm, amounts_text
from tmdeploy.bench.gate import Gate, failures
from tmdeploy.errors import UsageError


def _arm(**changes: Any) -> Arm:
    fields: dict[str, Any] = {"name": "m.onnx", "kind": "model", "baseline": "m.onnx, unmerged", "amounts": "r=8"}
    runner: Any = SimpleNamespace()
    return Arm(runner=runner, path=Path("m.onnx"), schedule=None, macs=1, **(fields | changes))


def test_the_stricter_of_the_two_limits_holds():
    assert Gate().limit is None
    assert Gate(min_speedup=2.0).limit == Gate(max_ratio=0.5).limit == Gate(2.0, 0.8).limit == 0.5


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_factor(value: float):
    with pytest.raises(UsageError, match="a factor is above 0"):
        Gate(min_speedup=value)


def test_merged_arms_are_judged_by_their_twins():
    gate = Gate(min_speedup=1.3)
    rows = gate.judge(PAIR)
    assert [(row.arm, row.ratio) for row in rows] == [("a long name, 3", 0.65), ("a long name, 4", 0.65)]
    assert failures(rows) == ""
    said = failures(Gate(max_ratio=0.6).judge(PAIR[:3]))
    assert said == (
        "a long name, 3 at batch 1 is 1.54x as fast as its unmerged twin (0.65 of its time); "
        "wanted: at least 1.67x (at most 0.6)"
    )


def test_what_removes_nothing_is_not_judged():
    idle = PAIR[2].model_copy(update={"mac_ratio": 1.0})
    assert Gate(max_ratio=0.1).judge([idle]) == ()


def test_what_cannot_be_judged_is_refused():
    gate = Gate(max_ratio=0.8)
    gate.check([_arm()])
    with pytest.raises(UsageError, match="--max-ratio: m.onnx has no unmerged twin.*--no-twin"):
        gate.check([_arm(baseline=None)])
    with pytest.raises(UsageError, match="--min-speedup: no model here merges tokens"):
        Gate(min_speedup=2).check([_arm(amounts=None), _arm(kind="unmerged")])
    Gate().check([])


def test_amounts_in_words():
    assert amounts_text("r", [13] * 12) == "r=13"
    assert amounts_text("keep", (138, 97, 68)) == "keep=138,97,68"
    assert amounts_text("r", (26, 23, 21, 0)) == "r=26..0"
    assert amounts_text(None, ()) is None
