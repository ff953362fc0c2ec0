"""`tmdeploy build`: ONNX file or checkpoint to TensorRT engine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from .console import JsonOption, Output, TrustOption, progress, warn
from .schedule_option import ExportKeepOption, ExportROption, ExportScheduleOption

if TYPE_CHECKING:
    from tmdeploy.tensorrt.record.profiles import BatchRange

Text = str | None
_EXPORT = "Export of a checkpoint"


def build(
    model: Annotated[
        Path, typer.Argument(help="An .onnx, or a checkpoint, which is exported first.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Engine to write; default: MODEL with suffix .plan.")
    ] = None,
    flavor: Annotated[
        Literal["auto", "tensorrt", "rtx"], typer.Option(help="Which TensorRT; auto: the one that is installed.")
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(help="Convert an fp32 file to this; default: as it is, without TF32."),
    ] = None,
    keep_fp32: Annotated[
        Text,
        typer.Option(
            metavar="LIST",
            help="What stays fp32: planner, size, softmax, layernorm, op types, node patterns; +A,-B changes that.",
        ),
    ] = None,
    min_batch: Annotated[int | None, typer.Option(min=1, help="Smallest batch.  [default: 1]")] = None,
    opt_batch: Annotated[int | None, typer.Option(min=1, help="Batch to tune for.  [default: 8]")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Largest batch.  [default: 32]")] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MIN:OPT:MAX", help="Batch sizes of a profile, or one size. Repeatable, one profile each."
        ),
    ] = None,
    schedule_range: Annotated[
        Text, typer.Option(metavar="MIN:OPT:MAX", help="Make r or keep an input, with this range: 0:13:16.")
    ] = None,
    target_sm: Annotated[
        Text, typer.Option(metavar="LIST", help="GPUs to build for, TensorRT-RTX only: sm_86,sm_89.")
    ] = None,
    plugins: Annotated[
        Literal["auto", "aot", "none"],
        typer.Option(
            help="Token ops in full TensorRT: aot, plugins whose kernels the engine carries; none, standard ops; "
            "auto: --plugin if given, else aot where it can be had."
        ),
    ] = "auto",
    plugin: Annotated[Path | None, typer.Option(help="Library of tmdeploy's C++ plugins to build with.")] = None,
    embed_plugin: Annotated[bool, typer.Option("--embed-plugin", help="Carry that library in the engine.")] = False,
    workspace: Annotated[int | None, typer.Option(min=1, metavar="MIB", help="Memory for scratch space.")] = None,
    builder_optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="How long to search for fast kernels, 0 to 5.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run on later versions too (full TensorRT).")
    ] = False,
    hardware_compatible: Annotated[
        Literal["none", "ampere+", "same-cc"], typer.Option(help="Run on other GPUs too (full TensorRT).")
    ] = "none",
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Leave out weights; tmdeploy refit puts them in before use.")
    ] = False,
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Let tmdeploy refit put in other weights than these.")
    ] = False,
    weight_streaming: Annotated[
        bool, typer.Option("--weight-streaming", help="Let weights stay on the host at run time.")
    ] = False,
    profiling_verbosity: Annotated[
        Literal["none", "layer-names-only", "detailed"], typer.Option(help="What the engine tells about its layers.")
    ] = "detailed",
    timing_cache: Annotated[
        Path | None, typer.Option(help="Measured kernel times (full TensorRT). Default: in the user's cache folder.")
    ] = None,
    method: Annotated[Text, typer.Option(help=f"{_EXPORT}: reduction method.")] = None,
    r: ExportROption = None,
    keep: ExportKeepOption = None,
    schedule: ExportScheduleOption = None,
    layers: Annotated[Text, typer.Option(help=f"{_EXPORT}: blocks with a reduction step.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help=f"{_EXPORT}: side of the input in pixels.")] = None,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine, and a sidecar that says what it is and what it needs.

    tmdeploy build deit_s.onnx -o deit_s.plan --precision fp16 --schedule-range 0:13:16
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.errors import UsageError
    from tmdeploy.graph.precision import parse_keep
    from tmdeploy.report.tables.engine import build_document, engine_table
    from tmdeploy.tensorrt.build.request import BuildRequest
    from tmdeploy.tensorrt.build.run import build_engine
    from tmdeploy.tensorrt.record.profiles import parse_batch
    from tmdeploy.tensorrt.record.sidecar import Options, engine_files

    limits = (min_batch, opt_batch, max_batch)
    if profile and any(limit is not None for limit in limits):
        raise UsageError("--profile and --min-batch, --opt-batch, --max-batch say the same: give one kind")
    profiles = tuple(parse_batch(text) for text in profile or ())
    if not profiles:
        profiles = (_batch_range(*limits),)
    engine = output or model.with_suffix(".plan")
    out = Output(
        json,
        reads=[model, *([plugin] if plugin is not None else [])],
        writes={
            **engine_files(engine),
            "--timing-cache": timing_cache,
            "the exported file": engine.with_suffix(".onnx") if backend_for(model).reads_checkpoints else None,
        },
    )
    source = _exported(model, engine, _ExportOptions(method, r, keep, schedule, layers, image_size), trust_checkpoint)
    request = BuildRequest(
        model=source,
        output=engine,
        flavor=flavor,
        precision=precision,
        keep_fp32=parse_keep(keep_fp32),
        profiles=profiles,
        schedule=schedule_range,
        target_sm=tuple(part.strip() for part in (target_sm or "").split(",") if part.strip()),
        plugins=plugins,
        plugin=plugin,
        embed_plugin=embed_plugin,
        timing_cache=timing_cache,
        options=Options(
            workspace_mib=workspace,
            builder_optimization_level=builder_optimization_level,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            strip_weights=strip_weights,
            refittable=refittable,
            weight_streaming=weight_streaming,
            profiling_verbosity=profiling_verbosity,
        ),
        command=shlex.join(["tmdeploy", *sys.argv[1:]]),
    )
    with progress() as tell:
        result = build_engine(request, tell)
    out.console.print(engine_table(result.path, result.record, title=f"Built {result.path}"))
    out.emit(build_document(result))


def _batch_range(low: int | None, best: int | None, high: int | None) -> BatchRange:
    from tmdeploy.tensorrt.record.profiles import parse_batch

    low = 1 if low is None else low
    high = max(32, low, best or 0) if high is None else high
    best = min(max(8, low), high) if best is None else best
    return parse_batch(f"{low}:{best}:{high}", "--min-batch, --opt-batch, --max-batch")


class _ExportOptions(NamedTuple):
    method: Text
    r: Text
    keep: Text
    schedule: Text
    layers: Text
    image_size: int | None


def _exported(model: Path, engine: Path, options: _ExportOptions, trust_checkpoint: bool) -> Path:
    """The ONNX file: the one that was given, or one exported beside the engine, so that a rebuild is one command."""
    from tmdeploy.backends import backend_for
    from tmdeploy.errors import UsageError

    if not backend_for(model).reads_checkpoints:
        used = [name for name, value in options._asdict().items() if value is not None]
        if used:
            raise UsageError(
                f"--{used[0].replace('_', '-')}: only a checkpoint is exported; {model} is exported already"
            )
        return model
    from tmdeploy.lazy import require

    require("torch", purpose="exporting a checkpoint")
    require("onnxscript", purpose="exporting a checkpoint")
    from tmdeploy.export import ExportRequest, export_checkpoint

    target = engine.with_suffix(".onnx")
    if target.exists():
        raise UsageError(f"{target} exists already", remedy="Build from it, or name another engine with -o")
    request = ExportRequest(
        checkpoint=model,
        output=target,
        method=options.method,
        r=options.r,
        keep=options.keep,
        schedule=options.schedule,
        layers=options.layers,
        image_size=options.image_size,
        trust_checkpoint=trust_checkpoint,
    )
    with progress() as tell:
        result = export_checkpoint(request, tell)
    for note in result.notes:
        warn(note)
    return result.path
