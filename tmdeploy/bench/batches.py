"""Batch sizes to time when none were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from tmdeploy.backends import Runner
from tmdeploy.errors import UsageError

_USUAL = (1, 8)


def default_batches(runners: Sequence[Runner]) -> tuple[int, ...]:
    """1 and 8, as far as every model takes them; else what the first engine is tuned for.

    Args:
        runners: Runners of all arms.

    Raises:
        UsageError: No size suits all of them.
    """
    tuned = next((one.engine.batches for one in runners if one.engine is not None), ())
    for candidates in (_USUAL, tuned):
        fitting = tuple(size for size in candidates if all(runner.takes_batch(size) for runner in runners))
        if fitting:
            return fitting
    raise UsageError("no batch size suits all of these models", remedy="Time them apart, or give --batch")
