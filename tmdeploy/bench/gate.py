"""A limit that the merged arms have to meet, for CI: so much faster than their unmerged twins, or exit code 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tmdeploy.bench.arm import Arm
from tmdeploy.errors import UsageError
from tmdeploy.report.schemas.bench import ArmRow, GateRow


@dataclass(frozen=True)
class Gate:
    """What is wanted of every arm that merges, at every batch size.

    Attributes:
        min_speedup: Time of the unmerged twin over its own, at least.
        max_ratio: Its own time over the twin's, at most: the same, the other way round.

    Raises:
        UsageError: A limit that is not above 0.
    """

    min_speedup: float | None = None
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("--min-speedup", self.min_speedup), ("--max-ratio", self.max_ratio)):
            if value is not None and not 0.0 < value < float("inf"):
                raise UsageError(f"{option} {value:g}: a factor is above 0", remedy="Give it as 1.3")

    @property
    def limit(self) -> float | None:
        """The ratio to the twin that is allowed: the smaller where both were given; None without a gate."""
        limits = [] if self.max_ratio is None else [self.max_ratio]
        limits += [] if self.min_speedup is None else [1.0 / self.min_speedup]
        return min(limits, default=None)

    def check(self, arms: Sequence[Arm]) -> None:
        """Refuse, before anything is timed, what could not be judged.

        Raises:
            UsageError: No arm merges, or one that does has no unmerged twin.
        """
        if self.limit is None:
            return
        option = "--max-ratio" if self.min_speedup is None else "--min-speedup"
        judged = [one for one in arms if one.kind == "model" and one.amounts is not None]
        if not judged:
            raise UsageError(f"{option}: no model here merges tokens", remedy="Name one that does")
        alone = next((one for one in judged if one.baseline is None), None)
        if alone is not None:
            raise UsageError(
                f"{option}: {alone.name} has no unmerged twin to be compared with",
                remedy="Leave out --no-twin; beside an engine, time one built from the file with --method none",
            )

    def judge(self, rows: Sequence[ArmRow]) -> tuple[GateRow, ...]:
        """Every arm that removes tokens against the limit; one with r = 0 cannot be faster than its twin.

        Args:
            rows: All arms at all batch sizes.
        """
        limit = self.limit
        if limit is None:
            return ()
        return tuple(
            GateRow(
                arm=row.name, batch=row.batch, ratio=row.ratio.median, limit=limit, passed=row.ratio.median <= limit
            )
            for row in rows
            if row.kind == "model" and row.ratio is not None and (row.mac_ratio is None or row.mac_ratio < 1.0)
        )


def failures(rows: Sequence[GateRow]) -> str:
    """One sentence about those that did not pass; empty if all did."""
    failed = [
        f"{row.arm} at batch {row.batch} is {1 / row.ratio:.3g}x as fast as its unmerged twin "
        f"({row.ratio:.3g} of its time)"
        for row in rows
        if not row.passed
    ]
    if not failed:
        return ""
    limit = rows[0].limit
    return f"{'; '.join(failed)}; wanted: at least {1 / limit:.3g}x (at most {limit:.3g})"
