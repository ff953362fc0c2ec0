"""Optimisation profiles: which batch sizes and schedules an engine takes, and which it is tuned for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.card.schedule import clipped, schedule_text
from tmdeploy.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    import onnx

_MOST = 2**31 - 1  # of TensorRT's dimensions
_WIDE = 8  # max / opt beyond which kernels chosen for opt serve max badly


class BatchRange(BaseModel):
    """Batch sizes of one profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(ge=1, le=_MOST)
    opt: int = Field(ge=1, le=_MOST)
    max: int = Field(ge=1, le=_MOST)

    @property
    def static(self) -> bool:
        """Whether it is one size."""
        return self.min == self.max

    def __str__(self) -> str:
        """`8`, or `1:8:32`."""
        return str(self.opt) if self.static else f"{self.min}:{self.opt}:{self.max}"


class ScheduleRange(BaseModel):
    """Amounts (r or keep, one per step) that an engine takes at run time, and the tokens they leave behind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="name of the shape input: r or keep")
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]
    fewest_tokens: tuple[int, ...] = Field(description="after each step, over the whole range")
    most_tokens: tuple[int, ...]
    clipped: tuple[int, ...] = Field(default=(), description="blocks where the graph clips the upper end")

    def __str__(self) -> str:
        """`r 0:13:16`."""
        return f"{self.kind} " + ":".join(schedule_text(ends) for ends in (self.min, self.opt, self.max))


def parse_batch(text: str, option: str = "--profile") -> BatchRange:
    """`8`, or `1:8:32` (min, opt, max).

    Raises:
        UsageError: Not one or three whole numbers in ascending order, from 1.
    """
    low, best, high = _three(text, option)
    if len(low) + len(best) + len(high) != 3:
        raise UsageError(f"{option} {text}: a batch size is one number", remedy="Give 8, or 1:8:32")
    if low[0] < 1:
        raise UsageError(f"{option} {text}: a batch has at least one image")
    if not low[0] <= best[0] <= high[0]:
        raise UsageError(f"{option} {text}: min, opt and max are not in ascending order")
    return BatchRange(min=low[0], opt=best[0], max=high[0])


def parse_schedule(text: str, metadata: ArtifactMetadata) -> ScheduleRange:
    """`0:13:16`, each end one amount or one per step: `0:8,8,4,4:16`.

    Args:
        text: What the user typed.
        metadata: The file's metadata.

    Raises:
        UsageError: The file's schedule is fixed, or the ends are not ascending or below what is possible.
    """
    option = "--schedule-range"
    card, kind = metadata.card, metadata.schedule_input
    if not card.reduces:
        raise UsageError(f"{option}: the model reduces no tokens")
    if kind is None:
        raise UsageError(
            f"{option}: the file was exported with a fixed schedule",
            remedy="Export it with --runtime-r to have a range",
        )
    steps = len(card.reduction.layers)
    ends = [values * steps if len(values) == 1 else values for values in _three(text, option)]
    for values in ends:
        if len(values) != steps:
            raise UsageError(f"{option} {text}: {len(values)} values for {steps} reduction steps")
    low, best, high = ends
    if any(not a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
        raise UsageError(f"{option} {text}: min, opt and max are not in ascending order")
    if kind == "keep" and min(low) < 1:
        raise UsageError(f"{option} {text}: at least one patch token is kept")
    ranges = [card.steps(values) for values in (low, high)]
    counts = [[step.tokens_out for step in steps] for steps in ranges]
    fewest, most = (tuple(pick(pair) for pair in zip(*counts, strict=True)) for pick in (min, max))
    over = clipped(ranges[1], kind, prefix=card.num_prefix)
    return ScheduleRange(
        kind=kind,
        min=low,
        opt=best,
        max=high,
        fewest_tokens=fewest,
        most_tokens=most,
        clipped=tuple(step.block for step, _ in over),
    )


def check_clipping(model: onnx.ModelProto, schedule: ScheduleRange, *, path: str) -> None:
    """Make sure that the graph bounds the amounts: TensorRT builds an engine for negative token counts unasked.

    Raises:
        ArtifactError: An amount reaches a token count without a `Min` in between.
    """
    suffix = "removed" if schedule.kind == "r" else "chosen"
    bounded = {node.output[0] for node in model.graph.node if node.op_type == "Min"}
    for step in range(len(schedule.max)):
        if f"step_{step}_{suffix}" not in bounded:
            raise ArtifactError(
                f"its graph does not bound {schedule.kind} in step {step}: an engine could be asked for a negative "
                "number of tokens",
                path=path,
                remedy="Export it again with this version of tmdeploy",
            )


def advice(profiles: Sequence[BatchRange]) -> list[str]:
    """Sentences about profiles that work but will be slow."""
    return [
        f"profile {profile}: kernels are chosen for batch {profile.opt}, far from {profile.max}; "
        "several profiles (repeat --profile) are faster"
        for profile in profiles
        if profile.max > _WIDE * profile.opt
    ]


def _three(text: str, option: str) -> list[tuple[int, ...]]:
    ends = text.split(":")
    try:
        values = [tuple(int(number) for number in end.split(",")) for end in ends]
    except ValueError:
        raise UsageError(f"{option} {text}: not whole numbers", remedy="Give one value, or MIN:OPT:MAX") from None
    if len(values) not in {1, 3}:
        raise UsageError(f"{option} {text}: has {len(values)} ends", remedy="Give one value, or MIN:OPT:MAX")
    if any(number < 0 for end in values for number in end):
        raise UsageError(f"{option} {text}: cannot be negative")
    if any(number > _MOST for end in values for number in end):
        raise UsageError(f"{option} {text}: above {_MOST}")
    return values * 3 if len(values) == 1 else values
