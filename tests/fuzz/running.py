"""Run cases in processes of their own, many a process, and say what came of each."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext
from pathlib import Path

from tests.fuzz.cases import Case
from tests.fuzz.mutators import BYTES, MEANING
from tmdeploy.errors import TimeLimitReached

CORPUS = Path(__file__).parent / "corpus"
UNBROKEN = "not at all"
CODES = {0, 1, 2, 3, 4, 124}  # cli/app.py
_PER_PROCESS = 50
_PATIENCE_S = 120.0  # for one case, however slow the machine
_MEMORY_MIB = 2048  # what a process may come to beyond what it began with


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: Which.
        code: Of the exit; negative: ended by that signal.
        error: What was printed to stderr.
        complaint: Why that is not as it should be; empty if it is.
    """

    case: Case
    code: int
    error: str
    complaint: str = ""


def broken_corpus(case: Case, folder: Path) -> None:
    """A copy of the corpus, with one file broken."""
    shutil.copytree(CORPUS, folder)
    path = folder / case.target.broken
    known = {**BYTES, **MEANING.get(path.suffix, {})}
    if case.mutator != UNBROKEN:
        path.write_bytes(known[case.mutator](path.read_bytes(), random.Random(case.seed)))


def arguments(case: Case, folder: Path, output: Path) -> list[str]:
    """The command line, with paths for names."""
    words = []
    for word in case.target.command.split():
        if word.startswith("{out}"):
            words.append(str(output / f"out{word.removeprefix('{out}')}"))
        else:
            words.append(str(folder / word[1:-1]) if word.startswith("{") else word)
    return words


def run_here(case: Case, root: Path) -> Outcome:
    """Run a case in this process."""
    import tmdeploy_cli

    folder, output = root / "corpus", root / "out"
    broken_corpus(case, folder)
    output.mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = arguments(case, folder, output)
    told, error = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(error):
        try:
            tmdeploy_cli.main(command)
        except SystemExit as stopped:
            code = stopped.code or 0
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    text = error.getvalue()
    number = code if isinstance(code, int) else -1
    complaint = _complaint(number, text, output, changed=before != after)
    shutil.rmtree(folder)
    shutil.rmtree(output)
    return Outcome(case, number, text, complaint)


def _complaint(code: int, error: str, output: Path, *, changed: bool) -> str:
    left = sorted(path.name for path in output.iterdir())
    errors = [line for line in error.splitlines() if line.startswith("error: ")]
    complaints = {
        "the exit code is none of those documented": code not in CODES,
        "internal error": "internal error" in error,
        "a traceback": "Traceback (most recent call last)" in error,
        "not one line that says what is wrong": code not in {0, 2} and len(errors) != 1,
        "control characters": any(ord(char) < 32 and char not in "\n\r\t" for char in error),
        "temporary files are left": any(name.startswith(".") for name in left),
        "an output of a command that failed": code not in {0, 1} and bool(left),
        "files beside it were changed": changed,
    }
    return "; ".join(name for name, is_so in complaints.items() if is_so)


def run_all(cases: Sequence[Case]) -> Iterator[Outcome]:
    """Run all, in forked processes; a crash or a case that never ends costs its process only."""
    os.environ["TMDEPLOY_NATIVE"] = "0"  # a library that happens to be installed would make other cases of these
    context = ForkContext()
    waiting = list(cases)
    while waiting:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(waiting[:_PER_PROCESS], sending))
        process.start()
        sending.close()
        done = 0
        with contextlib.suppress(EOFError):
            while receiving.poll(_PATIENCE_S):
                yield receiving.recv()
                done += 1
        batch = min(_PER_PROCESS, len(waiting))
        if done < batch:  # this one took the process with it
            if process.is_alive():
                process.kill()
            process.join()
            code = process.exitcode or 0
            why = "it never ended" if code == -signal.SIGKILL else f"the process was ended by {code}"
            # --timeout ends a process whose library does not stop when it is asked to
            yield Outcome(waiting[done], code, "", "" if code == TimeLimitReached.exit_code else why)
            done += 1
        process.join()
        receiving.close()
        waiting = waiting[done:]


def _work(cases: Sequence[Case], sending: Connection) -> None:
    os.setsid()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)  # what libraries print past Python
    began = _peak_mib()
    with tempfile.TemporaryDirectory(prefix="tmdeploy-fuzz-") as root:
        for number, case in enumerate(cases):
            folder = Path(root) / str(number)
            folder.mkdir()
            try:
                outcome = run_here(case, folder)
            except Exception:  # the test's own fault, or a command that did not end by SystemExit
                outcome = Outcome(case, -1, traceback.format_exc(), "an exception left the command")
            used = _peak_mib() - began
            if used > _MEMORY_MIB and not outcome.complaint:
                outcome = Outcome(case, outcome.code, outcome.error, f"memory: {used:.0f} MiB")
                began = _peak_mib()
            sending.send(outcome)
    sending.close()
    os._exit(0)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
