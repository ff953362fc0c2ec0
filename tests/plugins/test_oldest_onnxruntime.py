"""The native library in the oldest ONNX Runtime that is supported, and nodes that crash where nobody is careful."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from tests.backends.test_ort_versions import VERSIONS
from tests.fetching import unpacked_wheel

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_LOUD = "THE NATIVE LIBRARY IS NOT RUN IN THE OLDEST ONNX RUNTIME"


def _environment(version: str) -> dict[str, str]:
    if version == onnxruntime.__version__:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": str(unpacked_wheel(f"onnxruntime=={version}", _LOUD))}


@pytest.mark.parametrize("version", [VERSIONS[0], onnxruntime.__version__])
def test_no_node_ends_the_process(version: str, ort_built: Path):
    command = [sys.executable, HERE / "malformed_nodes.py", ort_built]
    done = subprocess.run(command, env=_environment(version), capture_output=True, text=True, check=False)
    *cases, last = done.stdout.splitlines()
    assert done.returncode == 0, last + done.stderr[-500:]
    words = last.split()
    assert words[:2] == ["onnxruntime", version]
    ran, refused = int(words[3]), int(words[5])
    assert ran + refused == len(cases)
    assert ran > 20
    assert refused > 100


def test_the_tests_of_the_ops_pass_in_the_oldest(ort_built: Path):
    """Bodies and kernels: the tests of this repository, in a process with that version."""
    version = VERSIONS[0]
    tests = ["tests/ops", "tests/plugins/test_onnxruntime.py"]
    program = f"import sys, pytest, onnxruntime as o; assert o.__version__ == '{version}'; sys.exit(pytest.main())"
    command = [sys.executable, "-c", program, "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=_environment(version), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
    assert " passed" in done.stdout
