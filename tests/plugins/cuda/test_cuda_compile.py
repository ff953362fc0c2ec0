"""The CUDA sources compile for every supported architecture without a warning, and no kernel spills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.cuda.building import PLUGINS, need

SCRIPT = PLUGINS.parent / "scripts" / "cuda_compile.py"


@pytest.mark.slow
def test_compiles_without_spills(tmp_path: Path) -> None:
    need("nvcc")
    report = tmp_path / "report.json"
    command = [sys.executable, SCRIPT, "--json", report, "--keep", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(report.read_text())
    assert {kernel["arch"] for kernel in document["kernels"]} == {"75", "80", "86", "89", "90", "100", "120"}
    names = {kernel["kernel"] for kernel in document["kernels"]}
    # float32, float16 and bfloat16; with and without the fast path's constants
    for name in ("match_image<float, 64, 32>", "select_image<Half, 0, 16>", "reduce_slots<BFloat16, 384, 8>"):
        assert name in names
    for kernel in document["kernels"]:
        assert kernel["spill_stores"] == kernel["spill_loads"] == 0, kernel
        threads = 512 if kernel["kernel"].startswith(("match", "select")) else 256
        assert kernel["registers"] * threads <= 65536, kernel  # one block fits an SM
    ptx = (tmp_path / "out" / "token_reduce.compute_75.ptx").read_text()
    assert ".target sm_75" in ptx


def test_source_that_does_not_compile_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\necho 'token_match.cu(1): error: no' >&2\nexit 1\n")
    broken.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "CUDACXX": str(broken)}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 4
    assert "token_match.cu(1): error: no" in done.stderr
