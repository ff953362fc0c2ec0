"""Limits of a validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FP32_ATOL = 1e-4
_QUANTIZED = {"int8", "fp8"}
# atol as a share of the largest logit, op_rtol, tie_gap, signal_rtol, max_ties
_DEFAULTS: dict[str, tuple[float, float, float, float, float]] = {
    "fp32": (0.0, 1e-5, 1e-5, 1e-4, 0.05),
    "fp16": (0.02, 2e-3, 5e-3, 2e-2, 0.5),
    "tf32": (0.02, 2e-3, 5e-3, 2e-2, 0.5),  # products of numbers with fp16's mantissa
    "bf16": (0.1, 1e-2, 2e-2, 1e-1, 1.0),
    "int8": (0.1, 1e-5, 5e-2, 2.5e-1, 1.0),
    "fp8": (0.2, 1e-5, 1e-1, 5e-1, 1.0),
}


@dataclass(frozen=True)
class Limits:
    """Limits of a validation; None takes the default of the candidate's precision.

    Attributes:
        atol: Largest logits error of images whose plans agree. fp32: 1e-4; fp16: 2 %, bf16 and int8: 10 %, fp8: 20 % of
            the largest logit.
        op_rtol: Largest error of an op on the same inputs, relative to its largest output. fp32, int8 and fp8, which
            leave reduction steps alone: 1e-5; fp16: 2e-3; bf16: 1e-2.
        tie_gap: Largest gap of a near-tie. fp32: 1e-5; fp16: 5e-3; bf16: 2e-2; int8: 5e-2; fp8: 1e-1.
        signal_rtol: Largest error of a planner's signal before a decision that differs, relative to its largest
            magnitude. fp32: 1e-4; fp16: 2e-2; bf16: 1e-1; int8: 2.5e-1; fp8: 5e-1.
        max_ties: Largest share of comparisons that may be near-ties. fp32: 5 %; fp16: half, since its rounding flips
            nearly equal tokens of every fourth image (docs/benchmarks.md); bf16, int8 and fp8: all, because noise of
            one part in 127 to 256 upstream reorders some of nearly every image.
        min_top1: Smallest top-1 agreement of images whose plans agree. 99.5 %; int8 and fp8: 98 %.
        min_p: Smallest p-value of McNemar's test when the candidate has fewer images right.
    """

    atol: float | None = None
    op_rtol: float | None = None
    tie_gap: float | None = None
    signal_rtol: float | None = None
    max_ties: float | None = None
    min_top1: float | None = None
    min_p: float = 0.05

    def for_precision(self, precision: str, logits: NDArray[np.float32]) -> ResolvedLimits:
        """Fill in what was left open.

        Args:
            precision: The candidate's: `fp32`, `tf32` (an engine's), `fp16`, `bf16`, `int8` or `fp8`; `int8+fp16` has
                the wider of both.
            logits: The reference's.
        """
        largest = max(1.0, float(np.abs(logits).max(initial=0.0)))
        rows = [_DEFAULTS.get(part, _DEFAULTS["fp32"]) for part in precision.split("+")]
        share, op_rtol, tie_gap, signal_rtol, max_ties = map(max, zip(*rows, strict=True))
        atol = share * largest if share > 0.0 else _FP32_ATOL
        quantized = any(part in _QUANTIZED for part in precision.split("+"))
        min_top1 = 0.98 if quantized else 0.995
        return ResolvedLimits(
            atol=self.atol if self.atol is not None else atol,
            op_rtol=self.op_rtol if self.op_rtol is not None else op_rtol,
            tie_gap=self.tie_gap if self.tie_gap is not None else tie_gap,
            signal_rtol=self.signal_rtol if self.signal_rtol is not None else signal_rtol,
            max_ties=self.max_ties if self.max_ties is not None else max_ties,
            min_top1=self.min_top1 if self.min_top1 is not None else min_top1,
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
