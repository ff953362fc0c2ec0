"""What a table compares that is not alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.bench.arm import Arm, EngineMode
from tmdeploy.bench.fairness import same_work, unlike


def _arm(name: str, device: str, **changes: Any) -> Arm:
    runner: Any = SimpleNamespace(name=name, facts=RunnerFacts("b", "1", device=device))
    return Arm(name, "model", runner, Path(name), None, 100, None, **changes)


def test_one_device_has_one_name():
    assert unlike([_arm("a.onnx", "cpu"), _arm("b.onnx", "CPU")]) == []
    assert unlike([_arm("a.plan", "cuda"), _arm("b.pt", "cuda:0")]) == []
    assert unlike([_arm("a.onnx", "CPU"), _arm("b.pt", "cuda")]) == [
        "the arms run on different devices (a.onnx on cpu; b.pt on cuda:0): their times do not compare backends"
    ]


def test_an_engine_is_compared_with_the_checkpoint_on_its_gpu():
    engine = _arm("a.plan", "cuda:0", mode=EngineMode(cuda_graph=True, transfers=True))
    here, there = (_arm("b.pt", device, checkpoint=CheckpointOptions()) for device in ("cuda", "cuda:1"))
    assert same_work(engine, [engine, there, here]) is here
    assert same_work(engine, [engine, there]) is None
