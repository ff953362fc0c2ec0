"""Numbers that several commands take as text."""

from __future__ import annotations

from tmdeploy.errors import UsageError

MOST_IMAGES = 1 << 20  # at a time: more than any machine has memory for


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
    if max(sizes) > MOST_IMAGES:
        raise UsageError(f"--batch {text}: no machine holds that many images at a time")
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
