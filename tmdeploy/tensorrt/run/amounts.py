"""The batch sizes and schedules an engine takes, checked against its sidecar before anything reaches TensorRT."""

from __future__ import annotations

from collections.abc import Sequence

from tmdeploy.errors import UsageError
from tmdeploy.tensorrt.record.sidecar import EngineRecord


def amounts_for(record: EngineRecord, schedule: Sequence[int] | None, *, name: str) -> tuple[int, ...] | None:
    """Values of the shape input; None if there is none.

    Args:
        record: The engine's sidecar.
        schedule: Requested amounts; None takes the file's default, or the range's optimum if the default is outside it.
        name: The engine's name, for messages.

    Raises:
        UsageError: The schedule is outside the engine's range or of another length, or the engine's schedule is fixed.
    """
    allowed = record.schedule
    if allowed is None:
        if schedule is None:
            return None
        raise UsageError(
            f"{name} was built with a fixed schedule", remedy="Build it with --schedule-range to change it"
        )
    if schedule is None:
        default = record.card.reduction.amounts if record.card is not None else allowed.opt
        inside = all(a <= b <= c for a, b, c in zip(allowed.min, default, allowed.max, strict=True))
        return default if inside else allowed.opt
    chosen = tuple(schedule)
    if len(chosen) != len(allowed.max):
        raise UsageError(f"{len(chosen)} amounts for {len(allowed.max)} reduction steps of {name}")
    if not all(a <= b <= c for a, b, c in zip(allowed.min, chosen, allowed.max, strict=True)):
        raise UsageError(f"{name} was built for {allowed}", remedy="Stay inside, or build with a wider range")
    return chosen


def check_batch(record: EngineRecord, batch: int, *, name: str, doing: str = "Bench") -> None:
    """Refuse a batch that would be padded or split, so that times are those of the batch.

    Args:
        record: The engine's sidecar.
        batch: Images per run.
        name: The engine's name, for messages.
        doing: What the sizes are for, as an instruction.

    Raises:
        UsageError: No profile holds it.
    """
    if not any(profile.min <= batch <= profile.max for profile in record.profiles):
        raise UsageError(
            f"{name} takes batch {', '.join(map(str, record.profiles))}, not {batch}",
            remedy=f"{doing} sizes it holds, or build it with another --profile",
        )
