"""Sessions of ONNX Runtime, made by several threads at once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest

from tmdeploy.backends import open_runner
from tmdeploy.backends.onnxruntime import packages
from tmdeploy.backends.onnxruntime.session import CPU, CpuTarget, make_session
from tmdeploy.errors import ArtifactError


class _Watching(CpuTarget):
    """Looks at stdout while a session is made, when another one is being made too."""

    def __init__(self, together: threading.Barrier) -> None:
        super().__init__(native=False)
        self._together, self.seen = together, []

    def providers(self, source: Path | bytes) -> list[tuple[str, dict[str, str]]]:
        self._together.wait(30)
        self.seen.append(sys.stdout)
        self._together.wait(30)
        return [(CPU, {})]


def test_threads_that_open_files_leave_stdout_alone(digits_onnx: Path):
    before, together = sys.stdout, threading.Barrier(2)
    targets = [_Watching(together) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda target: make_session(digits_onnx, path=digits_onnx, target=target), targets))
    seen: list[TextIO] = [stdout for target in targets for stdout in target.seen]
    assert [stdout is before for stdout in seen] == [True, True]
    assert sys.stdout is before


def test_runners_opened_by_threads_compute_the_same(digits_onnx: Path):
    with ThreadPoolExecutor(4) as pool:
        runners = list(pool.map(lambda _: open_runner(digits_onnx, threads=1), range(8)))
    assert {runner.schedule_length for runner in runners} == {runners[0].schedule_length}


def test_a_session_that_cannot_be_made_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="is no ONNX file"):
        make_session(broken, path=broken)
    assert capfd.readouterr() == ("", "")


def test_libraries_that_are_not_there_are_no_news(capfd: pytest.CaptureFixture[str]):
    looked = []

    def preload_dlls(directory: str = "nowhere") -> None:
        def one() -> None:
            print("Failed to load libcublas.so from", directory)

        looked.append(directory)
        one()

    packages.load_libraries(SimpleNamespace(preload_dlls=preload_dlls), packages.CUDA)
    assert looked == ["nowhere"]
    assert capfd.readouterr() == ("", "")
