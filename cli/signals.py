"""Ctrl-C and SIGTERM: an exception stops the command; where none gets through, the process ends all the same.

A Python handler runs between two bytecodes of the main thread, so a long call into a library holds it up, and what it
raises in a destructor or callback is lost. The C handler, however, writes to a file descriptor at once
(`signal.set_wakeup_fd`), and a thread waits there: if the command still runs after `GRACE_S`, or at the second signal,
it removes the temporary files and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

GRACE_S = 2.0
_MESSAGES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):
    _MESSAGES[signal.SIGHUP] = "terminated"

_received: signal.Signals | None = None


@contextlib.contextmanager
def heard(*, alone: bool = False) -> Iterator[None]:
    """Listen while the command runs.

    Args:
        alone: The command is all that the process is for. Then it ends there and then: Python would first take down all
            that libraries have loaded, which takes seconds after an export.

    After a signal the block ends with exit code 128 plus its number, as a shell reports it, no matter what libraries
    made of the interruption. A signal that the parent has us ignore (nohup) stays ignored. In a thread other than the
    main one nothing is listened to.

    Raises:
        SystemExit: A signal came.
    """
    global _received  # noqa: PLW0603 - signals come to the process
    _received = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in _MESSAGES if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    try:
        for each in before:
            signal.signal(each, _stop)
        with _watched():
            yield
    except BaseException:
        number = received()
        if number is None:
            raise
        print(_MESSAGES[number], file=sys.stderr)
        if alone:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(128 + number)
        raise SystemExit(128 + number) from None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def received() -> signal.Signals | None:
    """What told the command to stop."""
    return _received


def _stop(number: int, _: object) -> None:
    global _received  # noqa: PLW0603
    _received = signal.Signals(number)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    from tmdeploy.system.ending import end_process  # here: it is late to import when the end has come

    listening, written = socket.socketpair()
    written.setblocking(False)
    previous = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(listening, end_process), name="tmdeploy-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        written.close()  # ends the thread
        watcher.join()
        listening.close()


def _watch(listening: socket.socket, end_process: Callable[[str, int], NoReturn]) -> None:
    while data := listening.recv(1):
        if data[0] not in _MESSAGES:
            continue
        again, _, _ = select.select([listening], [], [], GRACE_S)
        if again and not listening.recv(1):
            return  # the command has ended
        number = signal.Signals(data[0])
        end_process(_MESSAGES[number], 128 + number)
