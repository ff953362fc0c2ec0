"""What `tmdeploy inspect` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.facts import ModelFacts
from tmdeploy.card.schedule import schedule_text
from tmdeploy.inspection import Inspection
from tmdeploy.report.schemas.export import proof_text
from tmdeploy.report.tables.export import method_text
from tmdeploy.report.tables.model import model_rows
from tmdeploy.report.tables.table import facts_table, plain_table
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_BAR = 24
# How the graph clips impossible amounts (docs/ops.md, Counts).
_RULE = {
    "r": "0 merges nothing; below 0 is 0, and what is above half of a block's patch tokens is clipped to it",
    "keep": "patch tokens to keep; below 1 is 1, and more than there are is all of them",
}


def print_inspection(found: Inspection, console: Console) -> None:
    """Print the facts about the file, then its blocks."""
    console.print(_facts(found))
    if found.blocks:
        console.print(_blocks(found))
    for note in found.notes:
        console.print(styled(("note", "yellow"), f" {note}"))


def _facts(found: Inspection) -> Table:
    table = facts_table(found.path)
    table.add_row("file", f"{found.kind}, {found.bytes / 1e6:.1f} MB, sha256 {found.sha256[:16]}…")
    card, metadata = found.card, found.metadata
    if card is not None:
        config = card.architecture
        size = " x ".join(map(str, config.image_size))
        patch = f"patch {config.patch_size}, " if isinstance(config, VitConfig) else ""
        text = f"{config.name}: {size}, {patch}width {config.width}, {config.depth} blocks, "
        heads = f"{config.heads} heads, " if config.heads is not None else ""
        table.add_row("architecture", f"{text}{heads}{config.num_classes} classes")
        if isinstance(config, ModelFacts):
            table.add_row("module", f"{config.module}, of the user's own: its MACs are not known")
        elif config.scales:
            how = "concatenated, then one linear layer" if config.fusion == "concat" else "summed"
            scales = ", ".join(map(str, config.scales))
            table.add_row(
                "stem", f"multi-scale: patches of {config.patch_size}, {scales}; {config.resample} to the grid, {how}"
            )
        for row in model_rows(card):
            table.add_row(*row)
    if card is None:
        table.add_row("metadata", "none: not exported by tmdeploy")
    elif metadata is None:  # a checkpoint
        recipe, kind = card.reduction, card.schedule_kind
        table.add_row("method", f"{recipe.method}, {kind} {schedule_text(recipe.amounts)}" if kind else recipe.method)
    else:
        table.add_row("method", method_text(card))
        form = f"{metadata.precision}, {metadata.lowering} lowering"
        if card.provenance is not None:
            form += f", tmdeploy {card.provenance.tool_version}, torch {card.provenance.torch_version}"
        table.add_row("made", f"from {card.source_name}, {form}")
        table.add_row("proved against", proof_text(card.proof))
        made, kind = metadata.quantization, metadata.schedule_input
        if made is not None:
            how = made.calibration if made.percentile is None else f"{made.percentile:g}th percentile"
            text = f"{made.quantized} nodes in {made.scheme}, {made.kept} kept in float ({', '.join(made.keep_float)})"
            table.add_row("quantised", f"{text}; {how} of {made.images} images, from {made.source_name}")
        if kind is not None:
            table.add_row("schedule", f"input '{kind}', int64 [{len(card.reduction.layers)}]; {_RULE[kind]}")
    if found.opsets:
        opsets = ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
        needs = "" if found.oldest_onnxruntime is None else f"; ONNX Runtime {found.oldest_onnxruntime} or later"
        table.add_row("opsets", f"{opsets}; IR {found.ir_version}{needs}")
    for name, ports in (("inputs", found.inputs), ("outputs", found.outputs)):
        lines = [
            f"{port.name}  {port.type} {list(port.shape)}{'  (optional)' if port.optional else ''}"
            for port in ports[:8]
        ]
        more = [f"... and {len(ports) - 8} more"] if len(ports) > 8 else []
        if ports:
            table.add_row(name, "\n".join(lines + more))
    if found.ops:
        custom = [f"{op} {count}" for op, count in found.ops.items() if "::" in op]
        total = sum(found.ops.values())
        table.add_row("nodes", f"{total}" + (f", of them {', '.join(custom)}" if custom else ""))
    if found.lowering is not None:
        table.add_row("reduction runs as", found.lowering)
    if found.macs is not None and found.macs_unmerged:
        saved = 1 - found.macs / found.macs_unmerged
        change = f"-{saved:.1%}" if saved >= 0.0005 else "nothing saved"
        text = f"{found.macs / 1e9:.3g} G of {found.macs_unmerged / 1e9:.3g} G unmerged ({change})"
        table.add_row("MACs", f"{text}, plus {(found.macs_reduction or 0) / 1e9:.2g} G for the reduction itself")
    return table


def _blocks(found: Inspection) -> Table:
    table = plain_table("Tokens at the default schedule")
    for column in ("block", "in", "out", "MACs"):
        table.add_column(column, justify="right")
    table.add_column("")
    most = max(row.tokens_in for row in found.blocks)
    for row in found.blocks:
        filled = max(1, round(_BAR * row.tokens_out / most))
        bar = styled(("█" * filled, "green"), ("░" * (_BAR - filled), "dim"))
        table.add_row(
            str(row.block),
            str(row.tokens_in),
            str(row.tokens_out),
            "-" if row.macs is None else f"{row.macs / 1e6:.1f} M",
            bar,
        )
    return table
