"""Ctrl-C and SIGTERM: heard from the first import on, and in calls that hold the main thread."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import run

TIMEOUT_S = 120  # generous: what is tested is that the process ends at all

# A session of ONNX Runtime that never returns, inside the writing of a file. `ready` says that the main thread has been
# in one and the same call for a while.
BLOCKED = """
import sys, threading, time
from pathlib import Path
import onnxruntime
import tmdeploy.doctor
import tmdeploy_cli
import tmdeploy_cli.signals
from tmdeploy.system.files import atomic_path

if len(sys.argv) > 3:
    tmdeploy_cli.signals.GRACE_S = float(sys.argv[3])

def announce():
    same, where = 0, None
    while same < 50:
        time.sleep(0.01)
        frame = sys._current_frames()[threading.main_thread().ident]
        here = (frame.f_code, frame.f_lasti)
        same, where = (same + 1 if here == where else 0), here
    print("ready", flush=True)

def block():
    with atomic_path(Path(sys.argv[2])):
        session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
        threading.Thread(target=announce, daemon=True).start()
        session.run(None, {})

tmdeploy.doctor.examine = block
tmdeploy_cli.main(["doctor"])
"""

# The signal comes while the module of this name is looked for.
AT_IMPORT = """
import signal, sys
import tmdeploy_cli

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
tmdeploy_cli.main(["doctor"])
"""

# What a library does when the interpreter ends.
AT_EXIT = """
import atexit, signal, sys
import tmdeploy.doctor
import tmdeploy_cli

atexit.register(lambda: print("taken down"))
tmdeploy.doctor.examine = lambda: signal.raise_signal(signal.SIGTERM)
sys.argv = ["tmdeploy", "doctor"]
tmdeploy_cli.main(*([] if sys.stdin.read() else [["doctor"]]))
"""


@contextlib.contextmanager
def _blocked(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")]
)
def test_a_call_that_never_returns_is_ended_and_leaves_no_file(
    number: signal.Signals, code: int, message: str, endless: Path, tmp_path: Path
):
    with _blocked(endless, tmp_path / "out.json", 0.1) as process:
        assert list(tmp_path.iterdir())  # the temporary file
        process.send_signal(number)
        _, told = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, told) == (code, message)
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_waits_for_nothing(endless: Path, tmp_path: Path):
    with _blocked(endless, tmp_path / "out.json", 3600) as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # nothing but the grace would end it
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, told) == (130, "interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["tmdeploy_cli.app", "typer", "rich", "tmdeploy_cli.doctor"])
def test_an_interruption_while_modules_are_imported_is_one_line(module: str):
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_process_of_its_own_ends_without_taking_libraries_down():
    for given, out in (("alone", ""), ("", "taken down\n")):
        done = subprocess.run(
            [sys.executable, "-c", AT_EXIT], input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (143, out, "terminated\n")


@pytest.mark.parametrize("disguise", [ImportError, SystemExit, RuntimeError])
def test_whatever_libraries_make_of_an_interruption_it_stays_one(
    disguise: type[BaseException], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise disguise("initialisation failed") from None

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("tmdeploy.doctor.examine", fail)
    done = run(capsys, "doctor")
    assert (done.code, done.err) == (143, "terminated\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_the_parent_ignores_stays_ignored(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tmdeploy.doctor.examine", lambda: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(capsys, "doctor").code == 4  # the command went on, with nothing to show
    finally:
        signal.signal(signal.SIGHUP, before)
