"""Times of an engine on a simulated clock: what the stand-ins take is what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tensorrt.fake_engine import fake_engine, use_fakes
from tests.tensorrt.fakes import Costs, FakeCuda
from tmdeploy.backends import open_runner
from tmdeploy.backends.tensorrt import TensorrtRunner
from tmdeploy.errors import DataError, UsageError
from tmdeploy.tensorrt.run.timing import QUEUED

COSTS = Costs(h2d=0.5e-3, compute=(2e-3,), d2h=0.25e-3, enqueue=0.4e-3, graph=0.01e-3)
IMAGES = np.arange(1, 3, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 4, 4), np.float32)


def _open(folder: Path, monkeypatch: pytest.MonkeyPatch, costs: Costs = COSTS) -> tuple[TensorrtRunner, FakeCuda]:
    cuda = FakeCuda(costs=costs)
    use_fakes(monkeypatch, cuda)
    runner = open_runner(fake_engine(folder))
    assert isinstance(runner, TensorrtRunner)
    return runner, cuda


@pytest.mark.parametrize("graph", [True, False])
def test_the_parts_of_a_call(graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    timer = runner.timer(IMAGES, graph=graph, transfers=True)
    for _ in range(3):  # kernels, captured, launched
        began = cuda.now
        np.testing.assert_allclose(timer.call()["logits"][:, 0], [1, 2])
    enqueue = 0.01e-3 if graph else 0.4e-3
    read = timer.read()
    assert read["h2d"] == pytest.approx([0.5e-3])
    assert read["d2h"] == pytest.approx([0.25e-3])
    assert read["enqueue"] == pytest.approx([enqueue])
    assert read["compute"] == pytest.approx([2e-3])  # enqueueing hides behind the copy of the images
    assert read["latency"] == pytest.approx([2.75e-3])
    assert cuda.now - began == pytest.approx(2.75e-3)


def test_without_transfers_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    timer = runner.timer(IMAGES, graph=False, transfers=False)
    timer.call()  # puts the images there
    began = cuda.now
    assert timer.call() == {}
    assert set(timer.read()) == {"compute", "latency", "enqueue"}
    assert cuda.now - began == pytest.approx(2e-3)
    runner.infer(IMAGES * 5)  # other images in the same buffers
    timer.call()
    assert runner._session._buffers["logits"].device in cuda.memory
    on_device = np.frombuffer(cuda.memory[runner._session._buffers["images"].device], np.float32)
    assert on_device[0] == 1.0, "the timer's own images are there again"


def test_queued_calls_overlap_the_host_and_never_more_than_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    timer = runner.timer(IMAGES, graph=False, transfers=False)
    timer.queue()
    waits: list[float] = []
    monkeypatch.setattr(cuda, "cudaEventSynchronize", _counted(cuda.cudaEventSynchronize, waits, cuda))
    began = cuda.now
    timer.queue()
    assert cuda.now - began == pytest.approx(QUEUED * 2e-3)  # the GPU never waits for the host
    assert len(waits) == QUEUED - 2
    read = timer.read()
    assert read["compute"] == pytest.approx([2e-3] * (QUEUED - 1))  # the first one waited for nobody
    assert read["enqueue"] == pytest.approx([0.4e-3] * (QUEUED - 1))


def _counted(function, waits: list[float], cuda: FakeCuda):
    def call(event: int):
        waits.append(cuda.now)
        return function(event)

    return call


def test_a_slow_host_shows_in_the_compute_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in trtexec: kernels that wait for each other's launch are counted as compute."""
    runner, _ = _open(tmp_path, monkeypatch, Costs(compute=(1e-3,), enqueue=3e-3, graph=0.02e-3))
    slow, quick = (runner.timer(IMAGES, graph=graph, transfers=False) for graph in (False, True))
    for timer, expected in ((slow, 3e-3), (quick, 1e-3)):
        for _ in range(2):
            timer.queue()
        assert np.median(timer.read()["compute"]) == pytest.approx(expected, rel=0.03)


def test_events_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, cuda = _open(tmp_path, monkeypatch)
    timer = runner.timer(IMAGES, graph=True, transfers=True)
    timer.queue()
    assert cuda.events
    timer.close()
    assert cuda.events == {}


def test_what_cannot_be_timed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, _ = _open(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match="takes batch 1:1:2, 4:8:16, not 3"):
        runner.timer(np.zeros((3, 3, 4, 4), np.float32), graph=True, transfers=True)
    with pytest.raises(DataError, match="takes float"):
        runner.timer(np.zeros((1, 4, 4, 3), np.uint8), graph=True, transfers=True)


def test_what_the_engine_says_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner, _ = _open(tmp_path, monkeypatch)
    memory = runner.memory()
    assert (memory.weights, memory.activations, memory.profiles, memory.streamable) == (1 << 20, 4096, (4096, 2048), 0)
    assert memory.buffers == 16 * (48 + 2) * 4  # images and logits of the largest batch
    monkeypatch.delattr("tests.tensorrt.fakes._Engine.get_engine_stat")  # TensorRT 10.13
    assert runner.memory().weights is None
