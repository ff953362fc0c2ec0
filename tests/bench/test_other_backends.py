"""Backends that bench has never heard of: it asks what they can do, and names none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmdeploy.backends import BACKENDS, Runner, Trace
from tmdeploy.backends import open_runner as open_any
from tmdeploy.backends.base import BackendInfo, load_runtime
from tmdeploy.backends.engine import Engine
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.bench.run import bench
from tmdeploy.bench.timing import Protocol
from tmdeploy.errors import ArtifactError
from tmdeploy.tensorrt.run.memory import EngineMemory

FAST = Protocol(warm_up_s=0.0, duration_s=0.0, iterations=3, rounds=3)


class _Plain(Runner):
    """The least that a backend is: it computes, and keeps its plans to itself."""

    plans_withheld = "this backend keeps its plans to itself"

    def __init__(self, path: Path, name: str) -> None:
        self._inner = inner = open_any(path, threads=1)
        self.path, self.name, self.metadata = path, name, inner.metadata
        self.preprocessing, self.class_names, self.pixels_in = inner.preprocessing, inner.class_names, inner.pixels_in
        self.load_seconds, self.facts = 0.0, RunnerFacts("plain", "1.0")

    def infer(self, images: Any, schedule: Sequence[int] | None = None) -> Any:
        return self._inner.infer(images, schedule)

    def trace(self, images: Any, schedule: Sequence[int] | None = None, *, tensors: bool = False) -> Trace:
        raise ArtifactError(str(self.plans_withheld), path=self.path)

    def close(self) -> None:
        self._inner.close()


class _Timer:
    """Says that a call takes 2 ms on the GPU, as long as it is not closed."""

    queued = 3

    def __init__(self, opened: list[_Timer]) -> None:
        self._opened, self._calls = opened, 0
        opened.append(self)

    def call(self) -> None:
        self._calls = 1

    def queue(self) -> None:
        self._calls = self.queued

    def read(self) -> Mapping[str, Sequence[float]]:
        times = [2e-3] * self._calls
        return {"compute": times, "enqueue": times, "latency": times}

    def close(self) -> None:
        self._opened.remove(self)


class _Engine(_Plain):
    """A second engine runtime, on a GPU."""

    timers: list[_Timer] = []  # noqa: RUF012 - of all of them

    def __init__(self, path: Path) -> None:
        model, self.build_precision = path.read_text().split()
        super().__init__(Path(model), path.name)
        self.path, self.facts = path, RunnerFacts("other-engine", "2.0", device="cuda", precision=self.build_precision)

    @property
    def engine(self) -> Engine:
        return self

    @property
    def build(self) -> Mapping[str, str]:
        return {"precision": self.build_precision}

    @property
    def batches(self) -> tuple[int, ...]:
        return (3,)

    @property
    def amounts(self) -> None:
        return None

    def takes_batch(self, size: int) -> bool:
        return 2 <= size <= 4

    def timer(self, images: Any, schedule: Any = None, *, graph: bool, transfers: bool) -> _Timer:
        return _Timer(self.timers)

    def memory(self) -> EngineMemory:
        return EngineMemory(None, 0, (), 0, 0, 0)


def open_runner(path: Path, *, threads: int | None = None) -> Runner:
    return _Engine(path) if path.suffix == ".other" else _Plain(path, path.name)


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    BACKENDS.add(BackendInfo("other-engine", (".other",), __name__, "a test"))
    BACKENDS.add(BackendInfo("plain", (".onnx",), __name__, "a test"))
    yield
    BACKENDS.forget()


def _engine(folder: Path, name: str, model: Path, precision: str = "fp16") -> Path:
    path = folder / name
    path.write_text(f"{model} {precision}")
    return path


def test_another_engine_runtime_is_timed_by_its_own_timer(digits_onnx: Path, tmp_path: Path):
    merged, other = (_engine(tmp_path, name, digits_onnx) for name in ("a.other", "b.other"))
    report = bench([merged, other], protocol=FAST, memory=False)
    names = ["graph", "no graph", "graph, no transfers", "no graph, no transfers"]
    assert [row.name for row in report.arms] == [f"{path.name}, {mode}" for path in (merged, other) for mode in names]
    assert {row.batch for row in report.arms} == {3}, "what it is tuned for, since it takes neither 1 nor 8"
    row = report.arms[0]
    assert row.gpu is not None
    assert (row.gpu.single["compute"].median_ms, row.gpu.queued["compute"].calls) == (pytest.approx(2.0), 9)
    assert (row.backend["backend"], row.backend["device"], row.precision) == ("other-engine", "cuda:0", "fp16")
    assert "a.other: no unmerged engine (none was given); build one with --method none" in " ".join(report.warnings)
    assert _Engine.timers == [], "all of them were closed"


def test_its_unmerged_twin_is_found_among_the_engines(
    digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start = _Engine.__init__

    def without_steps(self: _Engine, path: Path) -> None:
        start(self, path)
        assert self.metadata is not None
        if path.name.startswith("none"):
            bare = self.metadata.card.replace(recipe=None)
            self.metadata = self.metadata.model_copy(update={"card": bare, "schedule_input": None, "steps": ()})

    monkeypatch.setattr(_Engine, "__init__", without_steps)
    paths = [
        _engine(tmp_path, name, digits_onnx, precision)
        for name, precision in (("a.other", "fp16"), ("none32.other", "fp32"), ("none16.other", "fp16"))
    ]
    report = bench(paths, protocol=FAST, memory=False)
    ratios = {row.name: row.ratio.baseline for row in report.arms if row.ratio is not None}
    assert ratios == {
        f"a.other, {mode}": f"none16.other, {mode}"
        for mode in ("graph", "no graph", "graph, no transfers", "no graph, no transfers")
    }
    report = bench(paths[:2], protocol=FAST, memory=False)
    assert "no unmerged engine (none32.other is none: precision fp32, not fp16)" in " ".join(report.warnings)


def test_a_backend_that_runs_files_as_they_are_has_no_twin(digits_onnx: Path):
    report = bench([digits_onnx], backends=["plain"], protocol=FAST, batch_sizes=[1], memory=False, free_merge=True)
    assert [(row.name, row.kind, row.backend["backend"]) for row in report.arms] == [
        (digits_onnx.name, "model", "plain")
    ]
    for kind in ("unmerged", "free-merge"):
        assert f"{digits_onnx.name}: no {kind} twin: plain runs files as they are" in report.warnings


def test_the_least_backend_says_what_it_cannot_do(digits_onnx: Path):
    with open_any(digits_onnx, backend="plain") as runner:
        assert (runner.parts, runner.engine, runner.notes, runner.compute_seconds) == (None, None, (), None)
        assert runner.takes_batch(5)
        assert runner.infer(np.zeros((1, 3, 32, 32), np.float32)).shape[0] == 1
    assert load_runtime(digits_onnx, backend="plain") is None
