"""--timeout: a file that does not answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.running import run

# A library that does not stop when it is asked to.
DEAF = """
import sys
import tmdeploy.system.boundary as boundary
import tmdeploy_cli
boundary._GRACE_S = 0.1

def run_session(session, names, feeds, *, path, cause=None):
    with boundary.foreign_run(path):
        session.run(names, feeds)

import tmdeploy.backends.onnxruntime.runner
tmdeploy.backends.onnxruntime.runner.run_session = run_session
tmdeploy_cli.main(sys.argv[1:])
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("command", ["infer", "validate", "bench"])
def test_a_loop_that_never_ends_is_given_up(
    command: str, endless_classifier: Path, image: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = {"infer": [image], "validate": [endless_classifier], "bench": ["--no-memory"]}[command]
    done = run(capsys, command, endless_classifier, *arguments, "--timeout", 0.3)
    assert (done.code, done.out) == (124, "")
    assert done.err == (
        f"error: {endless_classifier}: did not answer within 0.3 s. Give it more time with --timeout; a file from "
        "elsewhere may hold a loop that never ends.\n"
    )


def test_a_library_that_does_not_stop_is_stopped_with_the_process(endless_classifier: Path, image: Path):
    command = [sys.executable, "-c", DEAF, "infer", str(endless_classifier), str(image), "--timeout", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (124, "")
    assert "did not answer within 0.3 s" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("bench", "--batch", 10**20), ("validate", "--random", 10**12)])
def test_more_images_than_any_machine_holds(
    arguments: tuple[object, ...], endless_classifier: Path, capsys: pytest.CaptureFixture[str]
):
    command, *rest = arguments
    models = [endless_classifier] * (2 if command == "validate" else 1)
    assert run(capsys, command, *models, *rest).code == 2


@pytest.mark.parametrize("threads", [1000, 10**30])
def test_more_threads_than_a_machine_wants(threads: int, endless_classifier: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "bench", endless_classifier, "--threads", threads)
    assert done.code == 2
    assert f"--threads {threads}: from 1 to " in done.err
