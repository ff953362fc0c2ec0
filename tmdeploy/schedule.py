"""Schedules: how many tokens go, block by block, and how many are left.

No torch here: the CLI, the exporter, the runtime and the MAC count share this arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tmdeploy.errors import UsageError


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


def r_limit(tokens: int, prefix: int) -> int:
    """Largest r that one bipartite match can merge: half of the patch tokens (ToMe, merge.py; methods.md 17.1)."""
    return max(0, (tokens - prefix) // 2)


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


def parse_r(text: str, depth: int) -> tuple[int, ...]:
    """Parse `--r`: `13` (every block), `26:0` (linear from the first block to the last), `8,8,4` (then zeros).

    Args:
        text: What the user typed.
        depth: Number of blocks.

    Returns:
        r of each block, length `depth`.

    Raises:
        UsageError: Not one of these forms, a negative number, or more numbers than blocks.
    """
    if ":" in text:
        ends = _integers(text, ":", "--r")
        if len(ends) != 2:
            raise UsageError(f"--r {text}: a range has two ends, as in 26:0")
        values = linear_r(ends[0], ends[1], depth)
    else:
        numbers = _integers(text, ",", "--r")
        if "," not in text:
            numbers = numbers * depth
        if len(numbers) > depth:
            raise UsageError(f"--r {text}: {len(numbers)} values for {depth} blocks", remedy="Give one value a block")
        values = tuple(numbers) + (0,) * (depth - len(numbers))
    return values


def check_r(r: Sequence[int], tokens: int, prefix: int) -> None:
    """Refuse an r that no block could ever merge.

    An r that only a late block cannot merge is clipped there, as ToMe does (r=16 ends with a step of 10).

    Raises:
        UsageError: A negative r, or one above half of the model's patch tokens.
    """
    limit = r_limit(tokens, prefix)
    for block, value in enumerate(r):
        if value < 0:
            raise UsageError(f"r is {value} in block {block}; it cannot be negative")
        if value > limit:
            raise UsageError(
                f"r is {value} in block {block}, but {tokens - prefix} patch tokens allow at most {limit}",
                remedy=f"Choose r between 0 and {limit}",
            )


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


def parse_keep(text: str, stages: int, tokens: int, prefix: int, *, fuse: bool) -> tuple[int, ...]:
    """Parse `--keep`: rates (`0.7`, `0.9,0.8,0.7`) or absolute counts of patch tokens (`138,97,68`).

    A rate keeps ceil(rate * (N - P)) of the patch tokens that reach the stage (EViT's rule, evit.py).

    Args:
        text: What the user typed.
        stages: Number of reduction steps.
        tokens: Tokens that enter the model, prefix included.
        prefix: Prefix tokens.
        fuse: Whether the tokens not kept leave one fused token behind, which the next stage counts as a patch token.

    Returns:
        Kept patch tokens of each stage.

    Raises:
        UsageError: Not numbers, outside (0, 1] or [1, patches], or not one value a stage.
    """
    fields = [field.strip() for field in text.split(",")]
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        raise UsageError(f"--keep {text}: not a number", remedy="Use rates (0.7 or 0.9,0.8,0.7) or counts") from None
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"--keep {text}: not a number", remedy="Use rates (0.7 or 0.9,0.8,0.7) or counts")
    if len(numbers) == 1:
        numbers, fields = numbers * stages, fields * stages
    if len(numbers) != stages:
        raise UsageError(f"--keep {text}: {len(numbers)} values for {stages} stages", remedy="Give one value a stage")
    keep: list[int] = []
    current = tokens
    for number, field in zip(numbers, fields, strict=True):
        patches = current - prefix
        is_rate = "." in field or "e" in field.lower() or number < 1
        if is_rate:
            if not 0.0 < number <= 1.0:
                raise UsageError(f"--keep {text}: a rate is above 0 and at most 1")
            count = math.ceil(number * patches)
        else:
            count = int(number)
            if not 1 <= count <= tokens - prefix:
                raise UsageError(f"--keep {text}: a count is between 1 and {tokens - prefix} patch tokens")
        keep.append(count)
        current = select_count(current, prefix, count, fuse=fuse)
    return tuple(keep)


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
    return values


def schedule_text(amounts: Sequence[int]) -> str:
    """`13` for a constant, `0-11` for a run of blocks, else the numbers: `26, 23, 21`."""
    values = list(amounts)
    if len(set(values)) == 1:
        return str(values[0])
    if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]}-{values[-1]}"
    return ", ".join(map(str, values))
