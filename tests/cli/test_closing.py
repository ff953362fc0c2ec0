"""Every command closes every runner it opens, twins included, whether it ends well or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.export.exporting import save_tiny
from tests.tensorrt.fake_engine import fake_engine, use_fakes
from tests.tensorrt.fakes import FakeCuda
from tests.vits import tiny_vit
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.backends.openvino import OpenvinoRunner
from tmdeploy.backends.pytorch import PytorchRunner
from tmdeploy.errors import ArtifactError

CHECKPOINT = EXAMPLES / "digits_tome.pt"
PHOTO = next((EXAMPLES / "digits").rglob("*.png"))
FAST = ("--duration", "0.01s", "--warm-up", "0s", "--rounds", 3, "--iterations", 3, "--batch", 2, "--no-memory")
COMMANDS: dict[str, tuple[tuple[object, ...], int]] = {
    "infer": (("{onnx}", PHOTO), 1),
    "infer a checkpoint": ((CHECKPOINT, PHOTO), 1),
    "infer with OpenVINO": (("{onnx}", PHOTO, "--backend", "openvino"), 1),
    "visualize": (("{onnx}", PHOTO, "-o", "{out}.png"), 1),
    "validate": ((CHECKPOINT, "{onnx}", "--random", 2), 2),
    "validate against itself": (("{onnx}", "{onnx}", "--random", 2), 1),
    # the file, its unmerged twin and its free-merge twin; the checkpoint and its twin
    "bench": (("{onnx}", CHECKPOINT, "--free-merge", *FAST), 5),
    "quantize": (("{onnx}", "--data", EXAMPLES / "digits", "--int8", "-o", "{out}.onnx", "--images", 4), 2),
    "export": (("{tiny}", "--method", "tome", "-o", "{out}.onnx"), 2),
}


@pytest.fixture
def open_runners(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each runner was closed; 0 for one that is still open."""
    closed: Counter[str] = Counter()

    def watch(kind: Any) -> None:
        start, close = kind.__init__, kind.close

        def opening(self: Any, *arguments: Any, **options: Any) -> None:
            start(self, *arguments, **options)
            closed[f"{len(closed)} {self.name}"] = 0
            self.ticket = list(closed)[-1]

        def closing(self: Any) -> None:
            close(self)
            closed[self.ticket] += 1

        monkeypatch.setattr(kind, "__init__", opening)
        monkeypatch.setattr(kind, "close", closing)

    for kind in (OnnxRuntimeRunner, OpenvinoRunner, PytorchRunner):
        watch(kind)
    return closed


@pytest.fixture
def typed(digits_onnx: Path, tmp_path: Path) -> Callable[[str], list[object]]:
    """The command as it is typed, with paths for what stands in braces."""
    paths = {"onnx": digits_onnx, "out": tmp_path / "out"}

    def typing(command: str) -> list[object]:
        if command == "export":
            paths["tiny"] = save_tiny(tiny_vit(), tmp_path, with_recipe=False)
        arguments = [part.format(**paths) if isinstance(part, str) else part for part in COMMANDS[command][0]]
        threads = [] if command in {"visualize", "export"} else ["--threads", 1]
        return [command.split(maxsplit=1)[0], *arguments, *threads]

    return typing


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in {"quantize", "export"}])  # slow
def test_what_was_opened_is_closed(
    command: str,
    typed: Callable[[str], list[object]],
    open_runners: Counter[str],
    capsys: pytest.CaptureFixture[str],
):
    done = run(capsys, *typed(command))
    assert done.code == 0, done.err
    assert len(open_runners) == COMMANDS[command][1]
    assert set(open_runners.values()) == {1}, open_runners


@pytest.mark.parametrize("command", COMMANDS)
def test_and_after_an_error_in_the_middle(
    command: str,
    typed: Callable[[str], list[object]],
    open_runners: Counter[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(self: Any, *_: object, **__: object) -> None:
        raise ArtifactError("broke while it ran", path=self.path)

    for kind in (OnnxRuntimeRunner, OpenvinoRunner, PytorchRunner):
        for name in ("infer", "trace"):
            monkeypatch.setattr(kind, name, fail)
    done = run(capsys, *typed(command))
    assert done.code != 0
    assert "broke while it ran" in done.err
    assert len(open_runners) == COMMANDS[command][1]
    assert set(open_runners.values()) == {1}, open_runners


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_the_first_is_closed_if_the_second_does_not_open(
    command: str, digits_onnx: Path, tmp_path: Path, open_runners: Counter[str], capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    done = run(capsys, command, digits_onnx, broken)
    assert (done.code != 0, list(open_runners.values())) == (True, [1])


def test_an_engine_gives_the_gpus_memory_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """With stand-ins; the second batch size is refused when the first has been timed."""
    cuda = FakeCuda()
    use_fakes(monkeypatch, cuda)
    done = run(capsys, "bench", "--engine", fake_engine(tmp_path), *FAST[:-3], "--batch", "1,5000", "--no-memory")
    assert done.code != 0
    assert "takes batch" in done.err
    assert cuda.made > 0
    assert (cuda.memory, cuda.events) == ({}, {})
