"""Schedules: how many tokens go, block by block, and how many are left.

No torch here: the CLI, the exporter, the runtime and the MAC count share this arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tmdeploy.errors import UsageError
from tmdeploy.ops.limits import r_limit

_MOST = 2**31 - 1  # an amount travels as int64; this leaves room for arithmetic on it
_NAMED = 3  # clipped blocks that a sentence names
_FEW_TOKENS, _FEW_SHARE = 4, 0.05  # patch tokens below which a block has little to attend to: the larger of the two


@dataclass(frozen=True)
class Step:
    """One reduction step of a schedule, with the token counts that follow from it.

    Attributes:
        block: 0-based block index.
        tokens_in: Tokens (prefix included) that enter the step.
        tokens_out: Tokens that leave it.
        amount: What was asked for: r (tokens to remove) or keep (patch tokens to keep).
    """

    block: int
    tokens_in: int
    tokens_out: int
    amount: int


def merged_count(tokens: int, prefix: int, r: int) -> int:
    """Tokens after merging r of `tokens`: N - max(0, min(r, (N - P) // 2))."""
    return tokens - max(0, min(r, r_limit(tokens, prefix)))


def kept_count(tokens: int, prefix: int, keep: int) -> int:
    """Prefix plus kept patch tokens: P + clamp(keep, 1, N - P), without a fused token."""
    return prefix + max(1, min(keep, tokens - prefix))


def linear_r(first: int, last: int, depth: int) -> tuple[int, ...]:
    """Values of r that fall or rise linearly over the blocks, truncated to integers (ToMe, utils.py `parse_r`)."""
    if depth == 1:
        return (first,)
    step = (last - first) / (depth - 1)
    return tuple(int(first + step * block) for block in range(depth))


def inflect_r(r: int, inflect: float, depth: int) -> tuple[int, ...]:
    """ToMe's `(r, inflect)`: -1 goes from 2r to 0, 0 is constant, 1 goes from 0 to 2r.

    Raises:
        UsageError: `inflect` is outside [-1, 1].
    """
    if not -1.0 <= inflect <= 1.0:
        raise UsageError(f"inflect must be between -1 and 1, got {inflect}")
    first = int(r * (1.0 - inflect))
    return linear_r(first, 2 * r - first, depth)


def parse_r(text: str, depth: int, option: str = "--r") -> tuple[int, ...]:
    """Parse `--r`: `13` (every block), `26:0` (linear from the first block to the last), `8,8,4` (then zeros).

    An r that a block cannot merge is no error: it is clipped there, as in ToMe's code and in the graph (`remarks`).

    Args:
        text: What the user typed.
        depth: Number of blocks with a reduction step.
        option: What it was typed after, for messages.

    Returns:
        r of each block, length `depth`.

    Raises:
        UsageError: Not one of these forms, a negative number, or more numbers than blocks.
    """
    if ":" in text:
        ends = _integers(text, ":", option)
        if len(ends) != 2:
            raise UsageError(f"{option} {text}: a range has two ends, as in 26:0")
        values = linear_r(ends[0], ends[1], depth)
    else:
        numbers = _integers(text, ",", option)
        if "," not in text:
            numbers = numbers * depth
        if len(numbers) > depth:
            raise UsageError(
                f"{option} {text}: {len(numbers)} values for {depth} blocks", remedy="Give one value a block"
            )
        values = tuple(numbers) + (0,) * (depth - len(numbers))
    return values


def parse_layers(text: str, depth: int) -> tuple[int, ...]:
    """Parse `--layers 3,6,9`: 0-based blocks with a reduction step.

    Raises:
        UsageError: Not integers, out of range, or not ascending.
    """
    layers = tuple(_integers(text, ",", "--layers"))
    if any(not 0 <= layer < depth for layer in layers):
        raise UsageError(f"--layers {text}: blocks are numbered 0 to {depth - 1}")
    if list(layers) != sorted(set(layers)):
        raise UsageError(f"--layers {text}: give each block once, in ascending order")
    return layers


def parse_keep(
    text: str, stages: int, tokens: int, prefix: int, *, fuse: bool, option: str = "--keep"
) -> tuple[int, ...]:
    """Parse `--keep`: rates (`0.7`, `0.9,0.8,0.7`) or absolute counts of patch tokens (`138,97,68`).

    A rate keeps ceil(rate * (N - P)) of the patch tokens that reach the stage (EViT's rule, evit.py). What is written
    without a point is a count: `1` is one token, `1.0` is all. A count above what is there is clipped (`remarks`).

    Args:
        text: What the user typed.
        stages: Number of reduction steps.
        tokens: Tokens that enter the model, prefix included.
        prefix: Prefix tokens.
        fuse: Whether the tokens not kept leave one fused token behind, which the next stage counts as a patch token.
        option: What it was typed after, for messages.

    Returns:
        Kept patch tokens of each stage.

    Raises:
        UsageError: Not numbers, rates outside (0, 1], counts below 1, both mixed, or not one value a stage.
    """
    fields = [field.strip() for field in text.split(",")]
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"{option} {text}: not a number", remedy="Use rates (0.7 or 0.9,0.8,0.7) or counts")
    if len(numbers) not in {1, stages}:
        raise UsageError(
            f"{option} {text}: {len(numbers)} values for {stages} reduction steps", remedy="Give one value, or one each"
        )
    are_rates = {_is_rate(field) for field in fields}
    if len(are_rates) > 1:
        raise UsageError(
            f"{option} {text}: mixes rates and counts",
            remedy="Write rates with a point (1.0 keeps all), or give counts only",
        )
    repeats = stages // len(numbers)
    if are_rates == {False}:
        counts = _integers(text, ",", option)
        if min(counts) < 1:
            raise UsageError(f"{option} {text}: at least one patch token is kept")
        return tuple(counts) * repeats
    if not all(0.0 < number <= 1.0 for number in numbers):
        raise UsageError(f"{option} {text}: a rate is above 0 and at most 1")
    keep: list[int] = []
    for rate in numbers * repeats:
        keep.append(math.ceil(rate * (tokens - prefix)))
        tokens = select_count(tokens, prefix, keep[-1], fuse=fuse)
    return tuple(keep)


def _is_rate(field: str) -> bool:
    return not field.lstrip("+-").isdecimal()


def select_count(tokens: int, prefix: int, keep: int, *, fuse: bool) -> int:
    """Tokens after a selection: the kept ones, plus one fused token when any was left over."""
    kept = kept_count(tokens, prefix, keep)
    return kept + 1 if fuse and kept < tokens else kept


def _integers(text: str, separator: str, option: str) -> list[int]:
    try:
        values = [int(field) for field in text.split(separator)]
    except ValueError:
        raise UsageError(f"{option} {text}: not a whole number") from None
    if any(value < 0 for value in values):
        raise UsageError(f"{option} {text}: cannot be negative")
    if max(values) > _MOST:
        raise UsageError(f"{option} {text}: no model has that many tokens")
    return values


def clipped(steps: Sequence[Step], kind: Literal["r", "keep"], *, prefix: int) -> tuple[tuple[Step, int], ...]:
    """The steps that are asked for more than is possible, each with what is possible there."""
    done = [(step, r_limit(step.tokens_in, prefix) if kind == "r" else step.tokens_in - prefix) for step in steps]
    return tuple((step, most) for step, most in done if step.amount > most)


def remarks(
    steps: Sequence[Step], kind: Literal["r", "keep"], *, prefix: int, depth: int, text: str | None = None
) -> tuple[str, ...]:
    """Sentences about a schedule that cannot be carried out as written, that leaves very little, or may be a slip.

    Args:
        steps: What becomes of it.
        kind: What its amounts count.
        prefix: Prefix tokens.
        depth: Blocks of the model.
        text: As it was typed, if it was.
    """
    if not steps:
        return ()
    found = []
    if kind == "keep" and text is not None and "1" in [field.strip() for field in text.split(",")]:
        found.append("keep 1 is a count, one patch token; 1.0 keeps all")
    over = clipped(steps, kind, prefix=prefix)
    if over:
        reason = "a block merges at most half of its patch tokens" if kind == "r" else "there are no more patch tokens"
        named = ", ".join(f"{step.amount} to {most} in block {step.block}" for step, most in over[:_NAMED])
        more = f" and in {len(over) - _NAMED} more" if len(over) > _NAMED else ""
        found.append(f"{kind} is clipped, as {reason}: {named}{more}")
    patches = steps[0].tokens_in - prefix
    few = max(_FEW_TOKENS, patches * _FEW_SHARE)
    # what the last block leaves is only read out: ToMe's own schedules end with 6 of 196
    bare = [step for step in steps if step.block < depth - 1 and step.tokens_out - prefix < few]
    if bare and patches > few:
        left, after = bare[0].tokens_out - prefix, bare[0].block
        found.append(
            f"few tokens: from block {after} on {left} of {patches} patch tokens are left; "
            f"choose a {'smaller r' if kind == 'r' else 'larger keep'} unless that is meant"
        )
    return tuple(found)


def schedule_text(amounts: Sequence[int]) -> str:
    """`13` for a constant, `0-11` for a run of blocks, else the numbers: `26, 23, 21`."""
    values = list(amounts)
    if len(set(values)) == 1:
        return str(values[0])
    if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]}-{values[-1]}"
    return ", ".join(map(str, values))


def as_typed(value: object) -> str:
    """A value or several as the command line takes them: 13, 0.7, `3,6,9`, `planner,Erf`."""
    if isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)
