"""`tmdeploy quantize`: ONNX file to a quantised one, compared with the original."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import JsonOption, Output, ThreadsOption, progress, warn_skipped
from .native_option import NativeOption
from .numbers import MOST_IMAGES
from .timeout_option import TimeoutOption


def quantize(
    model: Annotated[Path, typer.Argument(help="An fp32 .onnx of tmdeploy export.", show_default=False)],
    data: Annotated[
        list[str] | None, typer.Option(help="Images to calibrate on: a file, folder or glob. Repeatable.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers, symmetric.")] = False,
    fp8: Annotated[bool, typer.Option("--fp8", help="8-bit floats, E4M3FN: for GPUs from sm_89 on.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: MODEL.int8.onnx or MODEL.fp8.onnx.")
    ] = None,
    keep_float: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="What stays float: attention (default), metric-source, patch-embed, head, op types, node patterns; "
            "+A,-B changes that.",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Calibration images.")] = 128,
    batch: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="Images at a time.")] = 8,
    calibration: Annotated[
        Literal["minmax", "percentile", "entropy"], typer.Option(help="How the ranges of activations are found.")
    ] = "percentile",
    percentile: Annotated[float, typer.Option(help="Of magnitudes, for --calibration percentile.")] = 99.99,
    eval_data: Annotated[
        list[str] | None, typer.Option(help="Images to compare on. Default: those of --data not calibrated on.")
    ] = None,
    eval_images: Annotated[int, typer.Option(min=1, help="At most this many images to compare on.")] = 512,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest drop of accuracy (of agreement without labels), 0.01 is a point; above it, exit code 1 and "
            "no file."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images.")] = 0,
    threads: ThreadsOption = None,
    timeout: TimeoutOption = None,
    native: NativeOption = True,
    json: JsonOption = None,
) -> None:
    """Quantise a model's linear layers, never its planners, and compare it with the original on other images.

    tmdeploy quantize deit_s.onnx --data photos/ --int8
    """
    from tmdeploy.errors import CheckFailed, UsageError
    from tmdeploy.graph.keep import parse_keep
    from tmdeploy.quantize import QuantizeRequest
    from tmdeploy.quantize import quantize as run
    from tmdeploy.quantize.choice import DEFAULT_KEEP
    from tmdeploy.report.tables.quantize import print_quantization

    if int8 == fp8:
        raise UsageError("--int8 and --fp8 exclude each other" if int8 else "no scheme", remedy="Give --int8 or --fp8")
    scheme: Literal["int8", "fp8"] = "int8" if int8 else "fp8"
    output = output or model.with_suffix(f".{scheme}.onnx")
    out = Output(json, reads=[model, *(data or ()), *(eval_data or ())], writes={"-o": output})
    request = QuantizeRequest(
        model=model,
        output=output,
        scheme=scheme,
        data=data or [],
        keep_float=parse_keep(keep_float, DEFAULT_KEEP, "--keep-float"),
        images=images,
        batch=batch,
        calibration=calibration,
        percentile=percentile,
        eval_data=eval_data or [],
        eval_images=eval_images,
        max_drop=max_drop,
        seed=seed,
        threads=threads,
    )
    with progress() as tell:
        report = run(request, tell)
    print_quantization(report, out.console)
    warn_skipped(report.calibration_skipped, read=report.record.images)
    warn_skipped(report.comparison.skipped_images, read=report.comparison.images)
    out.emit(report)
    if not report.drop.passed:
        raise CheckFailed(
            f"{report.drop.measure} drops by {report.drop.value:.2%}, more than {report.drop.limit:.2%}", path=model
        )
