"""What `tmdeploy build` and `tmdeploy inspect ENGINE` print."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.report.tables.export import method_text
from tmdeploy.report.tables.table import facts_table, plain_table
from tmdeploy.tensorrt.record.sidecar import EngineRecord, Tensor, sidecar_path

if TYPE_CHECKING:
    from rich.table import Table


def engine_table(path: Path, record: EngineRecord, *, title: str) -> Table:
    """What an engine is, takes and needs."""
    table = facts_table(title)
    table.add_row("file", f"{record.bytes / 1e6:.1f} MB, sha256 {record.sha256[:16]}…, with {sidecar_path(path).name}")
    table.add_row("built by", f"{record.flavor.label} {record.tensorrt_version}, tmdeploy {record.tool_version}")
    table.add_row("runs on", _runs_on(record))
    kept = (
        f"; in fp32: {', '.join(record.keep_fp32) or 'nothing'}" if record.precision.endswith(("fp16", "bf16")) else ""
    )
    table.add_row("precision", f"{record.precision}{kept}")
    if record.card is not None:
        table.add_row("method", method_text(record.card))
    table.add_row("batch", ", ".join(map(str, record.profiles)))
    if record.schedule is not None:
        tokens = f"{record.schedule.fewest_tokens[-1]} to {record.schedule.most_tokens[-1]} tokens at the end"
        table.add_row("schedule", f"{record.schedule}: {tokens}")
    elif record.model is not None and record.model.steps:
        table.add_row("schedule", "fixed (build with --schedule-range to have it as an input)")
    for name, tensors in (("inputs", record.inputs), ("outputs", record.outputs)):
        table.add_row(name, "\n".join(map(_tensor_text, tensors)))
    table.add_row("reduction runs as", _lowering_text(record))
    if record.kernels is not None:
        steps = [step.only for step in record.kernels.steps]
        which = f" in profile 0 (batch {record.profiles[0]})" if len(record.profiles) > 1 else ""
        per_step = f", {min(steps)} to {max(steps)} of them for each reduction step alone" if steps else ""
        table.add_row("kernels", f"{record.kernels.total}{which}{per_step}")
        if record.model is not None:
            depth = record.model.card.architecture.depth
            table.add_row("attention fused", f"in {record.kernels.fused_attention} of {depth} blocks")
            made = record.model.quantization
            if made is not None:
                table.add_row("quantised", f"{record.kernels.quantized} kernels for the file's {made.quantized} nodes")
    options = record.options.model_dump(exclude_defaults=True)
    if options:
        table.add_row("options", ", ".join(f"{name.replace('_', '-')} {value}" for name, value in options.items()))
    table.add_row("build", f"{record.build_seconds:.1f} s from {record.source_name}")
    if record.stripped:
        table.add_row("weights", f"none: tmdeploy refit {shlex.quote(str(path))} {record.source} puts them in")
    elif record.refit is not None:
        table.add_row("weights", f"of {record.refit.source_name}, sha256 {record.refit.source_sha256[:16]}…, refitted")
    for note in record.notes:
        table.add_row("note", note)
    return table


def step_table(record: EngineRecord) -> Table | None:
    """Kernels of every reduction step; None if the build log lists none."""
    if record.kernels is None or not record.kernels.steps:
        return None
    table = plain_table("Kernels of the reduction steps")
    for column in ("block", "of the step alone", "shared with the model"):
        table.add_column(column, justify="right")
    for step in record.kernels.steps:
        table.add_row(str(step.block), str(step.only), str(step.shared))
    return table


def _runs_on(record: EngineRecord) -> str:
    if record.flavor.value == "rtx":
        gpus = ", ".join(record.target_sm) or "every GPU TensorRT-RTX builds for by default"
    elif record.options.hardware_compatible == "ampere+":
        gpus = "Ampere and later"
    elif record.options.hardware_compatible == "same-cc":
        gpus = f"GPUs of {record.sm}"
    else:
        gpus = f"{record.gpu} ({record.sm})"
    return f"{gpus}; {record.platform}"


def _lowering_text(record: EngineRecord) -> str:
    if record.plugin is not None:
        where = "in the engine" if record.plugin.embedded else "loaded from its file"
        return f"plugin, {where} ({Path(record.plugin.path).name}, sha256 {record.plugin.sha256[:16]}…)"
    if record.vehicle.value == "aot":
        return "ahead-of-time plugins, in the engine"
    return "standard ops (portable lowering)" if record.model is None or record.model.steps else "no reduction"


def _tensor_text(tensor: Tensor) -> str:
    return f"{tensor.name}  {tensor.type} {list(tensor.shape)}{'  (shape input)' if tensor.shape_input else ''}"
