"""Numbers that several commands take as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tmdeploy.errors import UsageError

if TYPE_CHECKING:
    from tmdeploy.backends import Runner


def batch_sizes(text: str) -> tuple[int, ...]:
    """`1,8` to (1, 8).

    Raises:
        UsageError: Not positive integers.
    """
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--batch {text}: not whole numbers", remedy="Give them as 1,8") from None
    if min(sizes) < 1:
        raise UsageError(f"--batch {text}: a batch has at least one image")
    return sizes


def percentiles(text: str) -> tuple[float, ...]:
    """`50,90,99` to numbers; bench checks their range.

    Raises:
        UsageError: Not numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--percentile {text}: not numbers", remedy="Give them as 50,90,99") from None


def steps_of(runner: Runner) -> tuple[int, ...]:
    """The default amounts of a model's reduction steps; empty if it reduces nothing."""
    if runner.metadata is not None:
        return runner.metadata.schedule
    recipe = getattr(runner, "recipe", None)
    return tuple(recipe.amounts) if recipe is not None else ()


def amounts(text: str) -> tuple[int, ...]:
    """`13` or `26,23,...` to numbers.

    Raises:
        UsageError: Not integers, or negative.
    """
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--schedule {text}: not whole numbers", remedy="Give one value, or one a step") from None
    if min(values) < 0:
        raise UsageError(f"--schedule {text}: cannot be negative")
    return values


def schedule_for(text: str, runner: Runner) -> tuple[int, ...]:
    """`13` or `26,23,...` to one amount a reduction step of this model.

    Raises:
        UsageError: Not integers, negative, or the wrong number of them.
    """
    values, steps = amounts(text), len(steps_of(runner))
    if len(values) == 1:
        values *= steps
    if not steps:
        raise UsageError(f"{runner.name} reduces no tokens, so it takes no schedule")
    if len(values) != steps:
        raise UsageError(f"--schedule {text}: {len(values)} values for {steps} reduction steps of {runner.name}")
    return values


def schedules(texts: Sequence[str] | None, runner: Runner) -> tuple[tuple[int, ...] | None, ...]:
    """Every `--schedule`; the model's own without any."""
    return tuple(schedule_for(text, runner) for text in texts) if texts else (None,)


def seconds(text: str, option: str) -> float:
    """`200ms`, `3s` or plain seconds.

    Raises:
        UsageError: Not a duration, or a negative one.
    """
    number, factor = (text[:-2], 1e-3) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        value = float(number) * factor
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise UsageError(f"{option} {text}: not a duration", remedy="Give it as 200ms or 3s")
    return value
