"""What `tmdeploy export` prints."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tmdeploy.card.card import ModelCard
from tmdeploy.card.schedule import schedule_text
from tmdeploy.data.samples import counted
from tmdeploy.report.schemas.export import ExportResult, proof_text
from tmdeploy.report.tables.model import model_rows
from tmdeploy.report.tables.table import facts_table
from tmdeploy.report.tables.validation import proved_text
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.table import Table


def export_table(result: ExportResult) -> Table:
    """The file and its self-check."""
    metadata, report = result.metadata, result.verification
    card = metadata.card
    table = facts_table(f"Exported {result.path}")
    table.add_row("size", f"{result.bytes / 1e6:.1f} MB")
    table.add_row("architecture", card.architecture.name)
    for row in model_rows(card):
        table.add_row(*row)
    table.add_row("method", method_text(card))
    if metadata.steps:
        tokens = " → ".join(str(step.tokens_out) for step in metadata.steps)
        table.add_row("tokens", f"{metadata.steps[0].tokens_in} → {tokens}")
    form = [f"opset {metadata.opset}", metadata.precision, f"{metadata.lowering} lowering"]
    form += ["dynamic batch"] if metadata.dynamic_batch else ["batch 1"]
    form += [f"runtime input '{metadata.schedule_input}'"] if metadata.schedule_input is not None else []
    form += ["uint8 pixels in"] if metadata.preprocessing_in_graph else []
    table.add_row("form", ", ".join(form))
    table.add_row("proved against", proof_text(card.proof))
    if report is None:
        table.add_row("compared with PyTorch", styled(("no (--no-verify)", "yellow")))
    else:
        batches = ", ".join(map(str, report.batch_sizes))
        error = report.model.logits_error_agreeing_max
        schedules = counted(len(report.schedules), "schedule")
        table.add_row("compared with PyTorch", f"{report.data}; batch {batches}; {schedules}")
        if metadata.steps:
            text = f"{report.agreeing} of {report.compared} plans equal, {report.near_ties} near-ties explained"
            table.add_row("decisions", text)
            table.add_row("reduction steps", proved_text(report))
        table.add_row("logits error", "no image with equal plans" if error is None else f"{error:.1e}")
    return table


def method_text(card: ModelCard) -> str:
    """Method, schedule, and options that are not the default, in one line; all options of a method unknown here."""
    from tmdeploy.errors import UsageError
    from tmdeploy.methods import build_method

    recipe, kind = card.reduction, None
    defaults: Mapping[str, object] = {}
    with contextlib.suppress(UsageError):
        kind, defaults = card.schedule_kind, build_method(recipe.method).options
    changed = [f"{key}={value}" for key, value in recipe.options.items() if defaults.get(key) != value]
    parts = [recipe.method]
    if kind is not None:
        parts.append(f"{kind} {schedule_text(recipe.amounts)}")
        parts.append(f"in blocks {schedule_text(recipe.layers)}")
    return ", ".join([*parts, *changed])
