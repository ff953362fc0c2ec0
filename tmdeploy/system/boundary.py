"""The boundary between this package and the libraries that read and run the user's files.

A file can be broken in more ways than anybody can list, and every library raises exceptions of its own. Every call
that hands a library something from a file goes through here: `library_call` around reading and passes over graphs,
`foreign_run` around loading and running a model, which may also never return.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tmdeploy.errors import ArtifactError, TimeLimitReached, TmdeployError
from tmdeploy.system.ending import end_process

_GRACE_S = 2.0  # after a library was asked to stop


def first_line(error: Exception) -> str:
    """The first line of a library's message, with the exception's type where the message alone says too little."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, (LookupError, AssertionError)):
        return " ".join([type(error).__name__, *lines[:1]])
    return lines[0]


@contextlib.contextmanager
def library_call(
    path: Path, what: str, *, remedy: str | None = None, told: Callable[[Exception], str] = first_line
) -> Iterator[None]:
    """Turn what a library raises into one line about the file.

    Args:
        path: The file.
        what: What went wrong, such as "cannot be quantised"; the library's own message follows in brackets.
        remedy: What to do.
        told: Picks the line of the exception to show; an empty string shows none.

    Raises:
        ArtifactError: The library raised anything but our own errors, or ran out of memory.
    """
    try:
        yield
    except (TmdeployError, MemoryError):
        raise
    except Exception as error:
        text = told(error)
        raise ArtifactError(f"{what} ({text})" if text else what, path=path, remedy=remedy) from error


class _TimeLimit:
    """How long one call may take, and the thread that enforces it."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._running: dict[int, _Call] = {}
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, call: _Call) -> Iterator[None]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="tmdeploy-time-limit", daemon=True)
            self._thread.start()
        self._running[id(call)] = call
        try:
            yield
        finally:
            del self._running[id(call)]

    def _watch(self) -> None:
        while True:
            time.sleep(0.05)
            now = time.monotonic()
            for call in list(self._running.values()):
                if now > call.deadline + _GRACE_S:
                    end_process(f"error: {call.error}", call.error.exit_code)
                if now > call.deadline and not call.expired:
                    call.expired = True
                    call.stop()


class _Call:
    def __init__(self, path: Path, seconds: float, stop: Callable[[], None]) -> None:
        self.deadline = time.monotonic() + seconds
        self.expired = False
        self.stop = stop
        self.error = TimeLimitReached(
            f"did not answer within {seconds:g} s",
            path=path,
            remedy="Give it more time with --timeout; a file from elsewhere may hold a loop that never ends",
        )


_limit = _TimeLimit()


def set_time_limit(seconds: float | None) -> None:
    """Limit the time of every call of `foreign_run`; None removes the limit.

    A library that does not stop when asked ends the process, so this is for the command line only.
    """
    _limit.seconds = seconds


@contextlib.contextmanager
def foreign_run(path: Path, stop: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Watch over a call that loads or runs a model.

    Args:
        path: The model.
        stop: Asks the library to give up; called from another thread.

    Raises:
        TimeLimitReached: It took longer than `set_time_limit` says.
    """
    if _limit.seconds is None:
        yield
        return
    call = _Call(path, _limit.seconds, stop)
    try:
        with _limit.watching(call):
            yield
    except Exception as error:
        if call.expired:  # the library's way of saying that it gave up
            raise call.error from error
        raise
    if call.expired:
        raise call.error
