"""`tmdeploy export`: checkpoint to ONNX."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import (
    ArchOption,
    AssumeOption,
    EmaOption,
    IgnoreExtraOption,
    JsonOption,
    NumHeadsOption,
    Output,
    TrustOption,
    progress,
    warn,
)
from .schedule_option import KeepOption, ROption, ScheduleOption

Text = str | None


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint: .pt, .safetensors, .ckpt, ...", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: CHECKPOINT with suffix .onnx.")
    ] = None,
    method: Annotated[
        Text, typer.Option(help="Reduction method (tmdeploy methods); default: the checkpoint's.")
    ] = None,
    r: ROption = None,
    keep: KeepOption = None,
    schedule: ScheduleOption = None,
    layers: Annotated[Text, typer.Option(help="Blocks with a reduction step, counted from 0: 3,6,9.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--method-option", "-O", metavar="KEY=VALUE", help="Option of the method.")
    ] = None,
    arch: ArchOption = None,
    num_heads: NumHeadsOption = None,
    assume: AssumeOption = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the input in pixels.")] = None,
    opset: Annotated[int, typer.Option(help="Version of the standard operators, 18 to 23.")] = 20,
    precision: Annotated[
        Literal["fp32", "fp16"], typer.Option(help="Weights and activations; planners and sizes stay fp32.")
    ] = "fp32",
    lowering: Annotated[
        Literal["custom", "portable"], typer.Option(help="Custom nodes with function bodies, or standard ops only.")
    ] = "custom",
    runtime_r: Annotated[
        bool, typer.Option("--runtime-r/--static-r", help="Make the schedule (r or keep) an optional input.")
    ] = True,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch/--static-batch", help="Any batch size, or 1.")] = True,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="Take uint8 [batch, H, W, 3] pixels and normalise in the graph."),
    ] = False,
    extra: Annotated[
        list[str] | None, typer.Option("--extra-output", help="Also put out: plan, size or features. Repeatable.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic/--fast-planner", help="Accumulate similarities in float64, or float32.")
    ] = True,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare the file with PyTorch.")] = True,
    verify_data: Annotated[
        list[Path] | None, typer.Option("--verify-data", help="Images or folders to compare on, besides random ones.")
    ] = None,
    ema: EmaOption = False,
    ignore_extra: IgnoreExtraOption = False,
    against: Annotated[
        Text,
        typer.Option(
            metavar="MODEL",
            help="Also prove it against your own model, unmerged: pkg.mod:build (found on PYTHONPATH or, since you "
            "name it, the current directory), timm:NAME, transformers:FOLDER, or outputs.npz saved from training.",
        ),
    ] = None,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Export a checkpoint to ONNX and compare the file with PyTorch before giving it its name.

    tmdeploy export deit_small.pth -o deit_s.onnx --method tome --r 13
    """
    from tmdeploy.lazy import require

    require("torch", purpose="exporting a checkpoint")
    require("onnxscript", purpose="exporting a checkpoint")
    from tmdeploy.export import ExportRequest, export_checkpoint
    from tmdeploy.report.tables.export import export_document, export_table

    output = output or default_output(checkpoint)
    request = ExportRequest(
        checkpoint=checkpoint,
        output=output,
        method=method,
        r=r,
        keep=keep,
        schedule=schedule,
        layers=layers,
        options=_options(option or []),
        arch=arch,
        num_heads=num_heads,
        assume=tuple(assume or ()),
        image_size=image_size,
        opset=opset,
        precision=precision,
        lowering=lowering,
        runtime_schedule=runtime_r,
        dynamic_batch=dynamic_batch,
        with_preprocessing=with_preprocessing,
        outputs=tuple(extra or ()),
        deterministic=deterministic,
        ema=ema,
        ignore_extra=ignore_extra,
        trust_checkpoint=trust_checkpoint,
        verify=verify,
        verify_images=tuple(verify_data or ()),
        against=against,
    )
    out = Output(json, reads=request.reads, writes={"-o": output})
    with progress() as tell, _own_stdout(against):
        result = export_checkpoint(request, tell)
    for note in result.notes:
        warn(note)
    out.console.print(export_table(result))
    out.emit(export_document(result))


def _own_stdout(against: str | None) -> contextlib.AbstractContextManager[object]:
    """What the owner's code prints goes to stderr: stdout is for the result, which may be JSON."""
    return contextlib.nullcontext() if against is None else contextlib.redirect_stdout(sys.stderr)


def default_output(checkpoint: Path) -> Path:
    """`m.onnx` beside `m.pth`; beside `m.pth.tar` too."""
    bare = checkpoint.with_suffix("")
    return (bare if checkpoint.suffix.lower() == ".tar" and bare.suffix else checkpoint).with_suffix(".onnx")


def _options(pairs: list[str]) -> dict[str, str]:
    from tmdeploy.errors import UsageError

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--method-option {pair}: not of the form KEY=VALUE")
        options[key] = value
    return options
