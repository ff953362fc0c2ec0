"""scripts/gpu_check.py where there is no GPU: what it says, and that its parts can be imported from a checkout."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tmdeploy_cli.app import build_app
from typer.main import get_group

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


def test_its_commands_are_the_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed option must fail here, not on the first machine that has a GPU."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    checks = importlib.import_module("gpu.engine_checks")
    steps = list(checks.preparation(tmp_path))
    for quick in (True, False):
        steps += [step for flavor in ("rtx", "tensorrt") for step in checks.engine_steps(tmp_path, flavor, quick=quick)]
        for backend in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
            steps += checks.provider_steps(tmp_path, backend, quick=quick)
    group = get_group(build_app())
    assert len(steps) > 20
    for step in steps:
        name, *arguments = [*step.arguments, *(("--json", "x.json") if step.document else ())]
        group.commands[name].make_context(name, arguments)  # raises what a user would see


def test_what_is_not_installed_is_reported_and_the_rest_goes_on(
    digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here neither engines nor providers can run: both stop at their first command, with the tool's own reason."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    checks, tallies = importlib.import_module("gpu.engine_checks"), importlib.import_module("gpu.tally")
    tally = tallies.Tally()
    steps = checks.provider_steps(tmp_path, "onnxruntime-cuda", quick=True)
    (tmp_path / "tome.onnx").write_bytes(digits_onnx.read_bytes())
    records = checks._run_all(steps, tmp_path, tally)
    assert [record["rc"] for record in records] == [3]
    assert "onnxruntime-gpu" in " ".join(records[0]["said"])
    assert tally.failed == []
