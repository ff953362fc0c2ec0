"""How long a benchmark still takes."""

from __future__ import annotations

import time
from collections.abc import Callable

_WORTH_SAYING_S = 5.0


class Pace:
    """Time left, from the share of the planned work that is done and how long that took.

    Args:
        planned: Work in all, in any unit.
        clock: Seconds; replaceable for tests.
    """

    def __init__(self, planned: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._planned, self._clock = planned, clock
        self._start = clock()
        self._done = 0.0

    def did(self, work: float) -> None:
        """That much more of it is done."""
        self._done += work

    def left(self) -> str:
        """`, about 3 min left`; empty before anything is known, and at the end."""
        if self._done <= 0.0:
            return ""
        seconds = (self._clock() - self._start) * max(0.0, self._planned / self._done - 1.0)
        return f", about {_words(seconds)} left" if seconds >= _WORTH_SAYING_S else ""


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
