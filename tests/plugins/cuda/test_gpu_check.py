"""scripts/gpu_check.py where there is no GPU: what it says, and that its parts can be imported from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.plugins.cuda.building import PLUGINS

ROOT = PLUGINS.parent
SCRIPTS = ROOT / "scripts"
NO_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


def test_says_in_one_line_that_there_is_no_gpu(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "gpu_check.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=NO_GPU, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "gpu_check needs a GPU" in done.stderr


def test_parts_import_without_a_gpu(tmp_path: Path) -> None:
    parts = sorted(path.stem for path in (SCRIPTS / "gpu").glob("[a-z]*.py"))
    assert "step_times" in parts
    program = "import sys; sys.path[:0] = sys.argv[1:3]; " + "; ".join(f"import gpu.{part}" for part in parts)
    command = [sys.executable, "-c", program, ROOT, SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, env=NO_GPU, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
