"""Schedules in words."""

from __future__ import annotations

from collections.abc import Sequence


def schedule_text(amounts: Sequence[int]) -> str:
    """`13` for a constant, `0-11` for a run of blocks, else the numbers: `26, 23, 21`."""
    values = list(amounts)
    if len(set(values)) == 1:
        return str(values[0])
    if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]}-{values[-1]}"
    return ", ".join(map(str, values))
