"""What ONNX Runtime prints to stderr when a stock session, with nothing set, opens and runs a file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_SESSION = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
_, channels, height, width = session.get_inputs()[0].shape
images = numpy.random.default_rng(0).random((1, channels, height, width), dtype=numpy.float32)
session.run(None, {"images": images})
"""


def _log(path: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _SESSION, str(path)], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


@pytest.mark.parametrize(("method", "lowering"), [("tome", "custom"), ("mstm", "portable")])
def test_only_the_overridable_schedule_is_logged(exported: Callable[..., Path], method: str, lowering: str):
    """ONNX Runtime warns of every initializer that can be fed, and has no form of one that it does not warn of."""
    (line,) = _log(exported(method, lowering=lowering))
    assert "Initializer" in line
    assert "appears in graph inputs and will not be treated as constant value" in line


def test_a_file_with_one_schedule_logs_nothing(exported: Callable[..., Path]):
    assert _log(exported("tome", lowering="portable", runtime_schedule=False)) == []
