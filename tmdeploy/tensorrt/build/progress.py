"""Progress and cancelling of a build, through TensorRT's IProgressMonitor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tmdeploy.system.progress import Progress

Result = TypeVar("Result")
_POLL_S = 0.05


class Cancel:
    """A flag that the builder checks after every step."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the builder to stop."""
        self._event.set()

    def __bool__(self) -> bool:
        """Whether it was asked to stop."""
        return self._event.is_set()


def make_monitor(module: Any, tell: Progress, cancel: Cancel) -> Any:
    """An `IProgressMonitor` that reports nested phases as one share, and stops the build when cancelled."""

    class _Monitor(module.IProgressMonitor):  # type: ignore[misc]  # a class of a package without types
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.tree = PhaseTree()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.tree.start(phase_name, parent_phase, num_steps)
            tell(phase_name, self.tree.share)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.tree.step(phase_name, step)
            tell(phase_name, self.tree.share)
            return not cancel

        def phase_finish(self, phase_name: str) -> None:
            self.tree.finish(phase_name)
            tell(phase_name, self.tree.share)

    return _Monitor()


class PhaseTree:
    """How much of the outermost phase is done, counting the steps of the phases inside it."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, done
        self._reached = 0.0

    @property
    def share(self) -> float:
        """From 0 to 1, never decreasing."""
        done = 0.0
        for name in self._open:
            part, weight, current = 0.0, 1.0, name
            while current in self._open:  # a phase fills one step of its parent
                parent, steps, finished = self._open[current]
                part = (finished + part) / steps if steps else 0.0
                if parent is None:
                    break
                current = parent
            done = max(done, min(part * weight, 1.0))
        self._reached = max(self._reached, done)
        return self._reached

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase, inside another one or as the outermost."""
        self._open[name] = (parent, steps, 0)

    def step(self, name: str, step: int) -> None:
        """Complete step `step` of a phase, counted from 0. TensorRT may take more steps than it announced."""
        if name in self._open:
            parent, steps, _ = self._open[name]
            self._open[name] = (parent, steps, min(step + 1, steps))

    def finish(self, name: str) -> None:
        """End a phase and all phases inside it."""
        parent, steps, _ = self._open.pop(name, (None, 0, 0))
        if parent is None and steps:
            self._reached = 1.0


def run_cancellable(work: Callable[[], Result], cancel: Cancel) -> Result:
    """Run `work` in a thread, so that Ctrl-C reaches this one at once and is passed on as a cancel.

    Raises:
        KeyboardInterrupt: After the work has stopped; SystemExit likewise.
    """
    outcome: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failures.append(error)
        finally:
            finished.set()

    finished = threading.Event()  # not Thread.join: Python 3.11 takes an interrupted join for the thread's end
    thread = threading.Thread(target=run, name="tmdeploy-build", daemon=True)
    thread.start()
    interruption: BaseException | None = None
    while not finished.is_set():
        try:
            finished.wait(_POLL_S)
        except (KeyboardInterrupt, SystemExit) as error:  # noqa: PERF203 - SIGTERM is the latter in our command line
            if interruption is not None:
                raise  # the second time: do not wait for the step to end
            interruption = error
            cancel.set()
    thread.join()
    if interruption is not None:
        raise interruption
    if failures:
        raise failures[0]
    return outcome[0]
