"""What `tmdeploy quantize` prints."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tmdeploy.report.schemas.quantize import QuantizeReport
from tmdeploy.report.tables.table import facts_table, plain_table
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_quantization(report: QuantizeReport, console: Console) -> None:
    """Print the file, the agreement of its plans step by step, and the verdict."""
    console.print(_facts(report))
    if report.steps:
        console.print(_steps(report))
    drop = report.drop
    text = f"{drop.measure} drops by {100 * drop.value:.2f} points"
    if drop.limit is None:
        console.print(f"{text}; no limit was given (--max-drop)")
    elif drop.passed:
        console.print(styled(("PASSED", "bold green"), f" {text}, limit {100 * drop.limit:.2f}"))
    else:
        console.print(styled(("FAILED", "bold red"), f" {text}, limit {100 * drop.limit:.2f}: nothing was written"))


def _facts(report: QuantizeReport) -> Table:
    record, seen = report.record, report.comparison
    table = facts_table(f"{'Quantised' if report.written else 'Not written:'} {report.output}")
    ratio = report.bytes_after / report.bytes_before
    size = f"{report.bytes_before / 1e6:.2f} to {report.bytes_after / 1e6:.2f} MB ({ratio:.0%})"
    table.add_row("size", size)
    how = record.calibration if record.percentile is None else f"{record.percentile:g}th percentile"
    table.add_row("calibrated", f"{how} on {record.images} images, {report.calibration_seconds:.1f} s")
    table.add_row(record.scheme, f"{record.quantized} matrix products and convolutions")
    kept = ", ".join(f"{entry} {count}" for entry, count in Counter(node.entry for node in report.kept).items())
    table.add_row("kept in float", (kept or "none") + f"; planners' own products: {len(report.planner)}")
    table.add_row("compared on", seen.data)
    top1, error = seen.model.top1, seen.model.logits_error_max
    agreement = f"{top1.share:.2%} (95 % interval {top1.low:.1%} to {top1.high:.1%})"
    table.add_row("top-1 agreement", agreement)
    table.add_row("logits", f"largest error {error:.2g}, KL mean {seen.model.kl_mean:.2g}, max {seen.model.kl_max:.2g}")
    if seen.accuracy is not None:
        rates = f"{seen.accuracy.reference:.2%} to {seen.accuracy.candidate:.2%}, {seen.accuracy.images} images"
        table.add_row("accuracy", f"{rates}, McNemar p = {seen.accuracy.p_value:.2g}")
    return table


def _steps(report: QuantizeReport) -> Table:
    table = plain_table("Plans equal to the unquantised model's, up to each step")
    for column in ("block", "tokens", "images", "share", "tokens changed"):
        table.add_column(column, justify="right")
    for step in report.steps:
        changed = "" if step.tokens_changed is None else f"{step.tokens_changed:.1f}"
        counts = (str(step.block), str(step.tokens_in), f"{step.agreeing} of {step.images}")
        table.add_row(*counts, f"{step.agreeing / step.images:.1%}", changed)
    return table
