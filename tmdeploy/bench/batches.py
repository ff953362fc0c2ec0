"""Batch sizes to time when none were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from tmdeploy.backends import Runner
from tmdeploy.backends.tensorrt import TensorrtRunner
from tmdeploy.errors import UsageError

_USUAL = (1, 8)


def default_batches(runners: Sequence[Runner]) -> tuple[int, ...]:
    """1 and 8, as far as every model takes them; else what the first engine is tuned for.

    Args:
        runners: Of all arms.

    Raises:
        UsageError: No size suits all of them.
    """
    tuned = next(
        ([profile.opt for profile in one.record.profiles] for one in runners if isinstance(one, TensorrtRunner)), []
    )
    for candidates in (_USUAL, tuned):
        fitting = tuple(size for size in candidates if all(_takes(runner, size) for runner in runners))
        if fitting:
            return fitting
    raise UsageError("no batch size suits all of these models", remedy="Time them apart, or give --batch")


def _takes(runner: Runner, size: int) -> bool:
    if isinstance(runner, TensorrtRunner):
        return any(profile.min <= size <= profile.max for profile in runner.record.profiles)
    return size == 1 or runner.metadata is None or runner.metadata.dynamic_batch
