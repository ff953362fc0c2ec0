"""A candidate that keeps its plans to itself, as an engine does: here an ONNX file behind an engine's face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import EXAMPLES
from tmdeploy.backends import open_runner
from tmdeploy.backends.base import Runner, Trace
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.backends.pairing import sample_source
from tmdeploy.errors import UsageError
from tmdeploy.validate import Limits, validate

DIGITS = EXAMPLES / "digits"


class _Engine(Runner):
    """A runner without plans; `scale` spoils its logits."""

    def __init__(self, model: Path, schedule: tuple[int, ...] | None = None, scale: float = 1.0) -> None:
        self._inner, self._scale, self._schedule = open_runner(model), scale, schedule
        self.name, self.path = "digits.plan", model.with_suffix(".plan")
        self.plans_withheld = "digits.plan is an engine, which keeps its plans to itself"
        inner = self._inner.metadata
        assert inner is not None
        recipe = inner.card.reduction
        if schedule is not None:
            recipe = recipe.model_copy(update={"amounts": schedule})
        card = inner.card.replace(recipe=recipe)
        self.metadata = inner.model_copy(update={"card": card, "schedule_input": None})
        self.preprocessing, self.pixels_in = self._inner.preprocessing, self._inner.pixels_in
        self.class_names, self.load_seconds = self._inner.class_names, 0.0
        self.facts = RunnerFacts(backend="tensorrt", version="TensorRT 11.4", precision="fp32")

    def infer(self, images: Any, schedule: Sequence[int] | None = None) -> Any:
        assert schedule is None, "its schedule is fixed"
        return self._inner.infer(images, self._schedule) * np.float32(self._scale)

    def trace(self, images: Any, schedule: Sequence[int] | None = None, *, tensors: bool = False) -> Trace:
        raise AssertionError("an engine is not asked for its plans")

    def close(self) -> None: ...


def _report(reference: Runner, candidate: Runner, limits: Limits | None = None) -> Any:
    samples = sample_source(reference, candidate, [DIGITS], random=1, limit=8)
    return validate(reference, candidate, samples, batch_sizes=(4,), limits=limits)


def test_an_engine_is_judged_by_its_outputs(digits_onnx: Path):
    engine = _Engine(digits_onnx)
    report = _report(open_runner(digits_onnx), engine)
    assert report.passed
    assert [check.level for check in report.checks] == ["model", "model", "accuracy"]
    assert {entry.level: entry.reason for entry in report.skipped} == {
        "numeric": engine.plans_withheld,
        "decisions": engine.plans_withheld,
    }
    assert report.agreeing == 0
    assert any("see --atol" in note for note in report.notes)


def test_an_engine_that_computes_something_else_fails(digits_onnx: Path):
    report = _report(open_runner(digits_onnx), _Engine(digits_onnx, scale=-1.0))
    assert not report.passed
    assert report.level_passed("model") is False


def test_the_reference_runs_with_the_engines_schedule(digits_onnx: Path):
    steps = (3, 3, 3, 3, 3, 3)
    report = _report(open_runner(digits_onnx), _Engine(digits_onnx, schedule=steps))
    assert report.passed
    assert report.model.logits_error_max < 1e-4


@pytest.mark.parametrize(
    ("limits", "option"), [(Limits(op_rtol=1e-3), "--op-rtol"), (Limits(tie_gap=1e-3), "--tie-gap")]
)
def test_levels_that_need_plans_are_refused_when_asked_for(limits: Limits, option: str, digits_onnx: Path):
    with pytest.raises(UsageError, match=f"{option}: digits.plan is an engine.* validate the .onnx"):
        _report(open_runner(digits_onnx), _Engine(digits_onnx), limits)
