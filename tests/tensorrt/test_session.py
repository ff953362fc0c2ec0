"""The logic around an engine: profiles, padding, portions, graphs, schedules. On stand-ins (fakes.py), not on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tensorrt.fake_engine import fake_engine, use_fakes
from tests.tensorrt.fakes import FakeCuda
from tmdeploy.backends import Runner, open_runner
from tmdeploy.backends.tensorrt import TensorrtRunner
from tmdeploy.errors import ArtifactError, DataError, EnvironmentMissing, UsageError
from tmdeploy.tensorrt.record.profiles import ScheduleRange
from tmdeploy.tensorrt.record.sidecar import Tensor

RANGE = ScheduleRange(kind="r", min=(0, 0), opt=(4, 4), max=(8, 8), fewest_tokens=(9, 9), most_tokens=(65, 65))


def _open(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, ranged: bool = False, loads: bool = True, limit: int = 1 << 30
) -> tuple[TensorrtRunner, FakeCuda]:
    images = Tensor(name="images", type="float", shape=(-1, 3, 4, 4))
    inputs = (images, Tensor(name="r", type="int64", shape=(2,), shape_input=True)) if ranged else (images,)
    path = fake_engine(folder, inputs=inputs, schedule=RANGE if ranged else None)
    cuda = FakeCuda(limit)
    use_fakes(monkeypatch, cuda, steps=2 if ranged else 0, loads=loads)
    runner = open_runner(path)
    assert isinstance(runner, TensorrtRunner)
    return runner, cuda


def _images(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 4, 4), np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16, 17, 40])
def test_every_batch_size_is_padded_or_cut(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, _ = _open(tmp_path, monkeypatch)
    for _ in range(4):  # enqueued, captured and launched, launched
        np.testing.assert_allclose(runner.infer(_images(count))[:, 0], np.arange(1, count + 1))


def test_profiles_are_changed_only_where_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    for count in (1, 2, 2, 8, 3, 16, 1):
        runner.infer(_images(count))
    assert [entry for entry in cuda.log if entry.startswith("profile")] == ["profile 1", "profile 0"]


def test_a_graph_is_captured_on_the_second_call_of_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    for _ in range(4):
        runner.infer(_images(2))
    work = [entry for entry in cuda.log if entry != "sync"]
    assert work == ["enqueue", "captured", "instantiate", "graph", "graph", "graph"]
    cuda.log.clear()
    runner.infer(_images(1))
    runner.infer(_images(2))
    assert [entry for entry in cuda.log if entry != "sync"] == ["enqueue", "graph"]
    runner.infer(_images(8))  # another profile: its kernels are others
    assert "destroy graph" in cuda.log


def test_schedules_reach_the_shape_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, _ = _open(tmp_path, monkeypatch, ranged=True)
    for _ in range(3):
        assert runner.infer(_images(2))[0, 1] == 8  # opt, for want of a default in this sidecar
        assert runner.infer(_images(2), (0, 0))[0, 1] == 0
        assert runner.infer(_images(2), (8, 3))[0, 1] == 11
    with pytest.raises(UsageError, match=r"was built for r 0:4:8\. Stay inside"):
        runner.infer(_images(1), (9, 0))
    with pytest.raises(UsageError, match="3 amounts for 2 reduction steps"):
        runner.infer(_images(1), (1, 1, 1))


def test_a_fixed_schedule_and_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, _ = _open(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match="was built with a fixed schedule.*--schedule-range"):
        runner.infer(_images(1), (1, 1))
    for wrong in (
        np.zeros((1, 3, 8, 8), np.float32),
        np.zeros((1, 3, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.float32),
    ):
        with pytest.raises(DataError, match=r"takes float \[-1, 3, 4, 4\], was given"):
            runner.infer(wrong)
    with pytest.raises(UsageError, match=r"takes batch 1:1:2, 4:8:16, not 3\. Bench sizes it holds"):
        runner.timer(np.zeros((3, 3, 4, 4), np.float32), graph=False, transfers=True)
    assert [size for size in range(1, 20) if runner.takes_batch(size)] == [1, 2, *range(4, 17)]
    assert (runner.engine.batches, runner.engine.build["batch"]) == ((1, 8), "1:1:2 4:8:16")


def test_it_is_a_runner_and_frees_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    assert isinstance(runner, Runner)
    assert runner.facts.version == "TensorRT-RTX 1.7.1.116"
    assert runner.preprocessing.image_size == (4, 4)
    with pytest.raises(ArtifactError, match="keeps its plans to itself.*trace tiny.onnx"):
        runner.trace(_images(1))
    for _ in range(3):
        runner.infer(_images(1))
    assert len(cuda.memory) == 4
    for _ in range(2):
        runner.close()
        assert cuda.memory == {}
        assert (cuda.log[-2:], cuda.log.count("destroy stream")) == (["destroy graph", "destroy stream"], 1)


def test_an_engine_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ArtifactError, match=r"TensorRT-RTX 1\.7\.1\.116 does not load it \(Serialization failed\)\. Build it again"
    ):
        _open(tmp_path, monkeypatch, loads=False)


def test_too_little_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(EnvironmentMissing, match=r"CUDA failed in cudaMalloc \(out of memory\)\. Use a smaller batch"):
        _open(tmp_path, monkeypatch, limit=100)


@pytest.mark.parametrize(
    ("diagnostics", "message"),
    [
        (1, "another version of TensorRT-RTX built it. Build it again"),
        (2, "it was not built for this GPU. Build it for this one with --target-sm"),
        (4, "the GPU's driver is too old for it. Update the driver"),
        (16 | 64, "the GPU has too little memory. Free some"),
        (0, "TensorRT-RTX gives no reason. Build it again"),
    ],
)
def test_tensorrt_rtx_is_asked_before_it_loads(
    diagnostics: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = use_fakes(monkeypatch, FakeCuda())
    module.diagnostics = diagnostics
    with pytest.raises(EnvironmentMissing) as caught:
        open_runner(fake_engine(tmp_path))
    assert message in caught.value.one_line()


@pytest.mark.parametrize(("chosen", "budget"), [(None, 1 << 19), (4096, 4096)])
def test_streamed_weights_have_a_budget_before_there_is_a_context(
    chosen: int | None, budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """TensorRT's own, or the caller's; the stand-in refuses a context without one."""
    module = use_fakes(monkeypatch, FakeCuda(), streamable=1 << 20)
    open_runner(fake_engine(tmp_path), weight_budget=chosen)
    assert module.weight_budget == budget
