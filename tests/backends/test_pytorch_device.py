"""Where the PyTorch backend computes; on a GPU without TF32."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.conftest import EXAMPLES
from tmdeploy.backends import open_runner
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.backends.pytorch import PytorchRunner
from tmdeploy.bench.fairness import checkpoint_device
from tmdeploy.errors import EnvironmentMissing, UsageError

CHECKPOINT = EXAMPLES / "digits_tome.pt"


def _open(**options: object) -> PytorchRunner:
    runner = open_runner(CHECKPOINT, **options)
    assert isinstance(runner, PytorchRunner)
    return runner


@pytest.mark.parametrize("pixels_in", [False, True])
def test_weights_and_images_go_to_the_device(pixels_in: bool):
    """Torch's meta device stands in: it has shapes and no numbers."""
    opened = _open(pixels_in=pixels_in)
    runner = PytorchRunner(
        opened._module,
        opened.card,
        name="m",
        path=CHECKPOINT,
        pixels_in=pixels_in,
        device="meta",
    )
    height, width = runner.preprocessing.image_size
    shape, dtype = ((2, height, width, 3), np.uint8) if pixels_in else ((2, 3, height, width), np.float32)
    assert {parameter.device.type for parameter in runner._module.parameters()} == {"meta"}
    images = runner._input(np.zeros(shape, dtype))
    assert (images.device.type, images.shape, images.dtype) == ("meta", (2, 3, height, width), torch.float32)
    assert runner.facts.device == "meta"


def test_tf32_is_off_on_a_gpu_during_a_call_and_as_before_after_it():
    runner = _open()
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    assert any(before), "torch has it on for convolutions; else this test would show nothing"
    runner.facts = replace(runner.facts, device="cuda:0")
    with runner._running(None):
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    assert [backend.allow_tf32 for backend in backends] == before
    runner.facts = replace(runner.facts, device="cpu")
    with runner._running(None):
        assert [backend.allow_tf32 for backend in backends] == before


def test_the_module_is_timed_apart_from_the_copies(monkeypatch: pytest.MonkeyPatch):
    """With stand-ins for torch's events; the copies and the module run on the CPU."""
    order: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("event")

        def elapsed_time(self, end: object) -> float:
            order.append("asked")
            return 1.5  # ms

    runner = _open()
    images = np.ones((1, 3, *runner.preprocessing.image_size), np.float32)
    expected = runner.infer(images)
    assert order == []
    put = runner._input
    runner._module.register_forward_pre_hook(lambda *_: order.append("module"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(runner, "_input", lambda given: order.append("copy") or put(given))
    monkeypatch.setattr(RunnerFacts, "gpu", 0)
    np.testing.assert_array_equal(runner.infer(images), expected)
    assert order == ["copy", "event", "module", "event", "asked"]
    assert runner.compute_seconds == 1.5e-3


def test_it_says_where_and_how_it_computes():
    facts = _open(device="cpu").facts
    assert (facts.device, facts.gpu, facts.precision) == ("cpu", None, "fp32")
    assert facts.described()["mode"] == "eager, scaled_dot_product_attention"


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("auto", UsageError, "no device 'auto'"),
        ("cuda:x", UsageError, "no device 'cuda:x'. Give cpu, cuda or cuda:N"),
        ("cuda", EnvironmentMissing, "torch sees no cuda here. Install a CUDA build"),
    ],
)
def test_devices_that_cannot_be_had(device: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        _open(device=device)


@pytest.mark.parametrize(
    ("beside", "gpus", "expected"),
    [
        ("cuda:0", 1, "cuda:0"),
        ("CUDA", 1, "cuda:0"),
        ("cuda:1", 1, "cpu"),  # torch does not see that one
        ("cuda:0", 0, "cpu"),
        ("CPU", 1, "cpu"),
    ],
)
def test_beside_a_gpu_a_checkpoint_runs_on_it(beside: str, gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    others = [SimpleNamespace(facts=RunnerFacts("b", "1", device=device)) for device in ("cpu", beside)]
    assert checkpoint_device(others) == expected  # type: ignore[arg-type]
