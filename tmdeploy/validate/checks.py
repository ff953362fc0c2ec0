"""The judged numbers of each level, with their limits and the flags that set them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tmdeploy.report.schemas.validation import AccuracyRow, Check, RealisationRow
from tmdeploy.validate.comparison import Comparison
from tmdeploy.validate.limits import ResolvedLimits


def all_checks(
    seen: Comparison,
    limits: ResolvedLimits,
    accuracy: AccuracyRow | None,
    realisations: Sequence[RealisationRow],
    *,
    decisions: bool,
) -> tuple[Check, ...]:
    """Judge every level for which there is evidence.

    Args:
        seen: The evidence; at least one comparison.
        limits: How much may differ.
        accuracy: None without labels.
        realisations: What was seen of the ops by themselves.
        decisions: Whether plans were compared.
    """
    checks = [*_numeric(seen, limits), *_ops(realisations)]
    if decisions:
        checks += _decisions(seen, limits)
    checks += _model(seen, limits, decisions=decisions)
    if accuracy is not None:
        checks.append(_accuracy(accuracy, limits))
    return tuple(checks)


def _numeric(seen: Comparison, limits: ResolvedLimits) -> Iterator[Check]:
    if not seen.steps:
        return
    blocks = len({step.block for step in seen.steps})
    images = sum(step.images for step in seen.steps)
    where = f"{blocks} steps on the reference's inputs, {images} plans"
    differ = sum(step.plans_differ for step in seen.steps)
    # numpy's max keeps a NaN, Python's may lose it
    tokens, sizes = (float(np.max([getattr(step, name) for step in seen.steps])) for name in ("x_error", "size_error"))
    yield Check(level="numeric", name="plans that differ", value=differ, limit=0, option="-", detail=where)
    yield Check(level="numeric", name="error of tokens", value=tokens, limit=limits.op_rtol, option="--op-rtol")
    yield Check(level="numeric", name="error of sizes", value=sizes, limit=0, option="-")


def _ops(realisations: Sequence[RealisationRow]) -> Iterator[Check]:
    for row in realisations:
        if not row.ops:
            continue
        what = f"{', '.join(row.ops)}: {row.inputs} test inputs, without ties and with, against docs/ops.md"
        if row.foreign:
            what += f"; written otherwise than by this version: {', '.join(row.foreign)}"
        yield Check(
            level="numeric",
            name=f"wrong {'kernels' if row.name == 'native' else 'bodies'}",
            value=len(row.wrong),
            limit=0,
            option="-",
            detail="; ".join(row.wrong) or what,
        )


def _decisions(seen: Comparison, limits: ResolvedLimits) -> Iterator[Check]:
    total, ties, wrong = len(seen.decisions), seen.count("near-tie"), seen.count("divergent")
    moved = sum(decision.reordered for decision in seen.decisions)
    yield Check(
        level="decisions",
        name="divergent plans",
        value=wrong,
        limit=0,
        option="--tie-gap",
        detail=f"of {total} comparisons" + (f"; {moved} keep the same tokens in another order" if moved else ""),
    )
    yield Check(
        level="decisions",
        name="near-ties",
        value=ties / total,
        limit=limits.max_ties,
        option="--max-ties",
        detail=f"{ties} of {total} comparisons, gap below {limits.tie_gap:g}",
    )


def _model(seen: Comparison, limits: ResolvedLimits, *, decisions: bool) -> Iterator[Check]:
    agreeing = seen.agreeing
    if not agreeing.any():
        return
    which = "where plans agree" if decisions else "all images: plans were not compared"
    error = seen.worst_error("agree")
    assert error is not None  # noqa: S101 - some agree
    yield Check(level="model", name="logits error", value=error, limit=limits.atol, option="--atol", detail=which)
    top1 = seen.agreement(1, only=agreeing)
    yield Check(
        level="model",
        name="top-1 agreement",
        value=top1.share,
        limit=limits.min_top1,
        sense=">=",
        option="--min-top1-agreement",
        detail=f"{which}; 95 % interval {top1.low:.1%} to {top1.high:.1%}, {top1.images} images",
    )


def _accuracy(accuracy: AccuracyRow, limits: ResolvedLimits) -> Check:
    worse = accuracy.candidate < accuracy.reference
    return Check(
        level="accuracy",
        name="p-value of a drop",
        value=accuracy.p_value if worse else 1.0,
        limit=limits.min_p,
        sense=">=",
        option="--min-p",
        detail=f"{accuracy.reference:.1%} to {accuracy.candidate:.1%}, {accuracy.images} images, McNemar",
    )
