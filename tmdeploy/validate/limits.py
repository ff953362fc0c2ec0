"""How much may differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Limits:
    """Limits of a validation; None takes the default of the candidate's precision.

    Attributes:
        atol: Largest logits error of images whose plans agree. fp32: 1e-4; fp16: 2 %, bf16: 10 % of the largest logit.
        op_rtol: Largest error of an op on the same inputs, relative to its largest output. fp32: 1e-5; fp16: 2e-3;
            bf16: 1e-2.
        tie_gap: Largest gap of a near-tie. fp32: 1e-5; fp16: 5e-3; bf16: 2e-2.
        signal_rtol: Largest error of a planner's signal before a decision that differs, relative to its largest
            magnitude. fp32: 1e-4; fp16: 2e-2; bf16: 1e-1.
        max_ties: Largest share of comparisons that may be near-ties.
        min_top1: Smallest top-1 agreement of images whose plans agree.
        min_p: Smallest p-value of McNemar's test when the candidate has fewer images right.
    """

    atol: float | None = None
    op_rtol: float | None = None
    tie_gap: float | None = None
    signal_rtol: float | None = None
    max_ties: float = 0.05
    min_top1: float = 0.995
    min_p: float = 0.05

    def for_precision(self, precision: str, logits: NDArray[np.float32]) -> ResolvedLimits:
        """Fill in what was left open.

        Args:
            precision: The candidate's: `fp32`, `tf32` (an engine's), `fp16` or `bf16`.
            logits: The reference's.
        """
        largest = max(1.0, float(np.abs(logits).max(initial=0.0)))
        atol, op_rtol, tie_gap, signal_rtol = {
            "fp16": (0.02 * largest, 2e-3, 5e-3, 2e-2),
            "tf32": (0.02 * largest, 2e-3, 5e-3, 2e-2),  # products of numbers with fp16's mantissa
            "bf16": (0.1 * largest, 1e-2, 2e-2, 1e-1),
        }.get(precision, (1e-4, 1e-5, 1e-5, 1e-4))
        return ResolvedLimits(
            atol=self.atol if self.atol is not None else atol,
            op_rtol=self.op_rtol if self.op_rtol is not None else op_rtol,
            tie_gap=self.tie_gap if self.tie_gap is not None else tie_gap,
            signal_rtol=self.signal_rtol if self.signal_rtol is not None else signal_rtol,
            max_ties=self.max_ties,
            min_top1=self.min_top1,
            min_p=self.min_p,
        )


@dataclass(frozen=True)
class ResolvedLimits:
    """Limits with every number filled in; see `Limits`."""

    atol: float
    op_rtol: float
    tie_gap: float
    signal_rtol: float
    max_ties: float
    min_top1: float
    min_p: float
