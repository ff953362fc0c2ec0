"""What `tmdeploy inspect` prints of an engine's layers, memory, plugins and layer times."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tmdeploy.card.schedule import schedule_text
from tmdeploy.report.tables.table import facts_table, plain_table
from tmdeploy.report.text import styled
from tmdeploy.tensorrt.explain.document import EngineInspection
from tmdeploy.tensorrt.explain.layer_times import LayerTimes
from tmdeploy.tensorrt.record.layers import Layer, Listing
from tmdeploy.tensorrt.record.sidecar import EngineRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WHAT = {
    "attention": "products and softmax",
    "mlp": "products",
    "embedding": "of the patches",
    "head": "the classifier",
    "linear": "products of unknown use",
    "metric": "what planners decide on",
    "layernorm": "with sums and casts",
    "activation": "alone",
    "step": "reduction steps alone",
    "schedule": "token counts",
    "shapes": "computed on the host",
    "other": "casts, copies, sums",
}
_NODES_SHOWN = 3
_SLOWEST = 15


def print_layers(found: EngineInspection, console: Console, *, full: bool) -> None:
    """Print memory, inputs and outputs, plugins, and the layers: totals by kind and one step, or all layers.

    Args:
        found: The inspection.
        console: Output.
        full: Print every layer.
    """
    for table in (_memory(found), _ports(found), _plugins(found.engine)):
        if table is not None:
            console.print(table)
    if not found.listings:
        console.print(styled(("no layer listing:", "yellow"), f" {found.listings_note}"), soft_wrap=True)
        return
    if found.listings_note:
        console.print(styled(("note", "yellow"), f" {found.listings_note}"), soft_wrap=True)
    for listing in found.listings if full else found.listings[:1]:
        where = _source(listing, found.engine)
        if full:
            console.print(_all_layers(listing, where))
        else:
            console.print(_kinds(listing, where))
            step = _one_step(listing)
            if step is not None:
                console.print(step)
            console.print("--layers lists all of them", style="dim")


def print_times(times: LayerTimes, console: Console, *, full: bool) -> None:
    """Print layer times by kind, by step, and for the slowest layers or all."""
    schedule = "" if times.schedule is None else f", schedule {schedule_text(times.schedule)}"
    title = f"Layer times at batch {times.batch}{schedule}: medians of {times.iterations} runs"
    console.print(title, style="bold", soft_wrap=True)
    console.print(_time_by_kind(times))
    if times.steps:
        table = plain_table("Reduction steps")
        for column in ("block", "alone, ms", "share", "shared with the model, ms"):
            table.add_column(column, justify="right")
        for step in times.steps:
            share = step.alone_ms / times.total_ms if times.total_ms else 0.0
            table.add_row(str(step.block), f"{step.alone_ms:.4f}", f"{share:.1%}", f"{step.shared_ms:.4f}")
        console.print(table)
    layers = times.layers if full else sorted(times.layers, key=lambda layer: -layer.median_ms)[:_SLOWEST]
    table = plain_table("Layers" if full else "Slowest layers")
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    for column in ("median, ms", "share"):
        table.add_column(column, justify="right")
    for layer in layers:
        table.add_row(layer.name, layer.kind, f"{layer.median_ms:.4f}", f"{layer.share:.1%}")
    console.print(table)
    console.print(styled(("note", "yellow"), f" {times.note}"), soft_wrap=True)
    if times.unknown_layers:
        console.print(styled(("note", "yellow"), f" {times.unknown_layers} layers are in no listing"), soft_wrap=True)


def _source(listing: Listing, record: EngineRecord) -> str:
    where = f"from the {listing.source}"
    if listing.profile is None:
        return where + (f", {len(record.profiles)} profiles together" if len(record.profiles) > 1 else "")
    if listing.source == "engine inspector":
        return f"{where}, profile {listing.profile} at batch {record.profiles[listing.profile].opt}"
    return where + (f", profile {listing.profile}" if len(record.profiles) > 1 else "")


def _memory(found: EngineInspection) -> Table | None:
    table = facts_table("Memory")
    record, rows = found.engine, 0
    if found.loaded is not None:
        memory = found.loaded.memory
        sizes = [f"{_mib(size)} (profile {number})" for number, size in enumerate(memory.activation_bytes)]
        table.add_row("activations", ", ".join(sizes) + ", by TensorRT")
        if memory.weights_bytes is not None:
            table.add_row("weights", f"{_mib(memory.weights_bytes)}, by TensorRT")
        streamed = f"{_mib(memory.streamable_weights_bytes)}, scratch {_mib(memory.streaming_scratch_bytes)}"
        table.add_row("streamable weights", streamed)
        table.add_row("auxiliary streams", str(found.loaded.aux_streams))
        rows += 1
    if record.memory is not None:
        log = record.memory
        for name, size in (
            ("activations", log.activation_bytes),
            ("of it scratch", log.scratch_bytes),
            ("weights", log.weights_bytes),
        ):
            if size is not None:
                table.add_row(name, f"{_mib(size)}, by the build log")
                rows += 1
        peaks = [
            f"{where} {size} MiB"
            for where, size in (("CPU", log.builder_peak_cpu_mib), ("GPU", log.builder_peak_gpu_mib))
            if size is not None
        ]
        if peaks:
            table.add_row("builder's peak", f"{', '.join(peaks)}, TensorRT's allocators alone")
    return table if rows else None


def _ports(found: EngineInspection) -> Table | None:
    if not found.io:
        return None
    table = plain_table("Inputs and outputs")
    table.add_column("name", no_wrap=True)
    table.add_column("in", no_wrap=True)
    table.add_column("profiles: min, opt, max", overflow="fold")
    table.add_column("format", overflow="fold")
    for tensor in found.io:
        ranges = "\n".join(
            ", ".join("x".join(map(str, shape)) for shape in dict.fromkeys(ends)) for ends in tensor.ranges
        )
        formats = "\n".join(dict.fromkeys(tensor.formats))
        table.add_row(tensor.name, tensor.location, ranges or "-", formats)
    return table


def _plugins(record: EngineRecord) -> Table | None:
    if not record.plugin_layers:
        return None
    table = plain_table("Plugins")
    for column in ("creator", "version", "namespace"):
        table.add_column(column, no_wrap=True)
    table.add_column("layers", justify="right")
    table.add_column("comes from", overflow="fold")
    if record.plugin is not None:
        where = f"{record.plugin.path}, sha256 {record.plugin.sha256[:16]}…"
        where += ", in the engine" if record.plugin.embedded else ", loaded from its file"
    else:
        where = "\n".join(f"{ptx.file}, sha256 {ptx.sha256[:16]}…" for ptx in record.ptx)
        where = f"PTX in the engine:\n{where}" if where else "the engine"
    creators: dict[tuple[str, str, str], int] = {}
    for layer in record.plugin_layers:
        key = (layer.creator, layer.version, layer.namespace)
        creators[key] = creators.get(key, 0) + 1
    for number, (key, count) in enumerate(creators.items()):
        table.add_row(*key, str(count), where if number == 0 else "")
    return table


def _kinds(listing: Listing, where: str) -> Table:
    table = plain_table(f"Layers by kind, {where}")
    table.add_column("kind", no_wrap=True)
    table.add_column("layers", justify="right")
    table.add_column("with step nodes", justify="right", no_wrap=True)
    table.add_column("first output", overflow="fold")
    table.add_column("", style="dim", overflow="fold")
    kinds: dict[str, list[Layer]] = {}
    for layer in listing.layers:
        kinds.setdefault(layer.kind, []).append(layer)
    for kind, layers in sorted(kinds.items(), key=lambda item: -len(item[1])):
        mixed = sum(bool(layer.blocks) for layer in layers)
        outputs = Counter(operand.type for layer in layers for operand in layer.outputs[:1] if operand.type)
        types = ", ".join(f"{name} {count}" for name, count in outputs.most_common())
        table.add_row(kind, str(len(layers)), str(mixed or "-"), types, _WHAT[kind])
    table.add_row("all", str(len(listing.layers)), "", "", "", style="bold")
    return table


def _one_step(listing: Listing) -> Table | None:
    blocks = sorted({block for layer in listing.layers for block in layer.blocks})
    if not blocks:
        return None
    more = f", the first of {len(blocks)} steps" if len(blocks) > 1 else ""
    table = _layer_table(f"Layers of the reduction step in block {blocks[0]}{more}")
    for number, layer in enumerate(listing.layers):
        if blocks[0] in layer.blocks:
            short = [node.rpartition("/")[2] for node in layer.nodes]
            rest = len(short) - _NODES_SHOWN
            nodes = ", ".join(short[:_NODES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
            table.add_row(str(number), _kind(layer, where=False), layer.type, layer.types, nodes)
    return table


def _all_layers(listing: Listing, where: str) -> Table:
    table = _layer_table(f"Layers, {where}")
    for number, layer in enumerate(listing.layers):
        text = styled((layer.name, "dim"), f"\n{', '.join(layer.nodes)}" if layer.nodes else "")
        table.add_row(str(number), _kind(layer), layer.type, layer.types, text)
    return table


def _layer_table(title: str) -> Table:
    table = plain_table(title)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("kind")
    table.add_column("type", no_wrap=True)
    table.add_column("types", overflow="fold")
    table.add_column("ONNX nodes", overflow="fold")
    return table


def _kind(layer: Layer, *, where: bool = True) -> str:
    step = ", ".join(layer.parts)
    if not step:
        return layer.kind
    if where and layer.blocks:
        step += f" of block {','.join(map(str, layer.blocks))}"
    return step if layer.kind in {"step", "schedule"} else f"{layer.kind}; {step}"


def _time_by_kind(times: LayerTimes) -> Table:
    table = plain_table("By kind")
    table.add_column("kind", no_wrap=True)
    for column in ("ms", "share"):
        table.add_column(column, justify="right")
    for kind, time in times.kinds.items():
        table.add_row(kind, f"{time:.4f}", f"{time / times.total_ms:.1%}" if times.total_ms else "-")
    table.add_row("all", f"{times.total_ms:.4f}", "", style="bold")
    return table


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
