"""What all commands have in common."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tmdeploy_cli.app import COMMANDS

import tmdeploy
from tests.cli.running import run
from tests.conftest import EXAMPLES
from tmdeploy.errors import CheckFailed, UsageError
from tmdeploy.lazy import install_command

BLOCK_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnxscript", "safetensors"}:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Blocker())
"""


def _without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = BLOCK_TORCH + f"import tmdeploy_cli; tmdeploy_cli.main({[str(a) for a in arguments]!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_version_and_help(capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "--version").out == f"tmdeploy {tmdeploy.__version__}\n"
    shown = run(capsys, "--help").out
    for command in COMMANDS:
        assert command in shown
        assert run(capsys, command, "--help").code == 0


def test_unknown_command_and_option_are_usage_errors(capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "exprot").code == 2
    assert run(capsys, "doctor", "--fast").code == 2


def test_commands_on_an_onnx_file_need_no_torch(digits_onnx: Path, tmp_path: Path):
    images = EXAMPLES / "digits"
    for arguments in (
        ("--help",),
        ("methods",),
        ("inspect", digits_onnx),
        ("infer", digits_onnx, images / "3_0.png"),
        ("visualize", digits_onnx, images / "3_0.png", "-o", tmp_path / "groups.png"),
        ("bench", digits_onnx, "--batch", 1, "--duration", "0.1s", "--rounds", 3, "--iterations", 3, "--no-memory"),
        ("validate", digits_onnx, digits_onnx, "--data", images, "--batch", "4"),
        ("quantize", digits_onnx, "--data", images, "--int8", "-o", tmp_path / "int8.onnx"),
        ("doctor",),
    ):
        done = _without_torch(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def test_what_needs_torch_says_so_in_one_line(tmp_path: Path):
    done = _without_torch("export", EXAMPLES / "digits_tome.pt", "-o", tmp_path / "x.onnx")
    assert done.returncode == 3
    message = "error: exporting a checkpoint needs the Python package 'torch'. Install it with: "
    assert done.stderr == message + f"{install_command('export')}.\n"
    done = _without_torch("bench", EXAMPLES / "digits_tome.pt")
    assert done.returncode == 3
    assert "running the checkpoint" in done.stderr


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("tmdeploy.doctor.examine", fail)


REPORT_IT = "Run again with --debug for the traceback, and report it.\n"
FAILURES = [
    (UsageError("r is -1", remedy="Choose another"), 2, "error: r is -1. Choose another.\n"),
    (CheckFailed("x failed"), 1, "error: x failed\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
    (MemoryError(), 4, "error: out of memory. Use a smaller --batch, or a machine with more memory.\n"),
    (OSError(28, "No space left", "x.onnx"), 4, "error: x.onnx: No space left. Free some space.\n"),
    (ZeroDivisionError("a\nb"), 4, f"internal error: ZeroDivisionError: a b. {REPORT_IT}"),
]


@pytest.mark.parametrize(("error", "code", "message"), FAILURES)
def test_every_failure_is_one_line(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    _raising(monkeypatch, error)
    done = run(capsys, "doctor")
    assert (done.code, done.out, done.err) == (code, "", message)
    for arguments in (("--debug", "doctor"), ("doctor", "--debug")):
        assert "Traceback (most recent call last)" in run(capsys, *arguments).err


def test_debug_shows_what_graph_passes_change(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ("validate", digits_onnx, digits_onnx, "--random", 2, "--batch", 2)
    told = run(capsys, *arguments, "--debug").err.splitlines()
    assert any(re.fullmatch(r"cut-step: the step of block 0 by itself \(nodes: \d+\)", line) for line in told)
    assert "cut-step" not in run(capsys, *arguments).err


def test_doctor_fails_when_the_default_backend_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert run(capsys, "doctor").code == 0

    def broken() -> str:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr("tmdeploy.doctor._run_onnxruntime", broken)
    done = run(capsys, "doctor")
    assert done.code == 3
    assert "'onnxruntime'" in done.out
    assert done.err == "error: the embedded default does not work. pip install onnxruntime.\n"
