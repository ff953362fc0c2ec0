"""`tmdeploy refit`: weights into an engine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import JsonOption, Output, progress
from .native_option import TrustEngineOption


def refit(
    engine: Annotated[
        Path, typer.Argument(help="An engine built with --strip-weights or --refittable.", show_default=False)
    ],
    model: Annotated[Path, typer.Argument(help="The .onnx with the weights.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Engine to write; default: ENGINE with suffix .full.plan.")
    ] = None,
    other_weights: Annotated[
        bool,
        typer.Option("--other-weights", help="The .onnx is not the engine's source, but has its graph (--refittable)."),
    ] = False,
    trust_engine: TrustEngineOption = False,
    json: JsonOption = None,
) -> None:
    """Put weights into an engine that was built without them, on the GPU that it is for.

    tmdeploy refit deit_s.plan deit_s.onnx -o deit_s.full.plan
    """
    from tmdeploy.report.tables.engine import build_document, engine_table
    from tmdeploy.tensorrt.build.refit import RefitRequest, refit_engine
    from tmdeploy.tensorrt.record.sidecar import engine_files

    output = output or engine.with_name(f"{engine.stem}.full{engine.suffix}")
    request = RefitRequest(
        engine=engine,
        model=model,
        output=output,
        other_weights=other_weights,
        command=shlex.join(["tmdeploy", *sys.argv[1:]]),
    )
    out = Output(json, reads=request.reads, writes=engine_files(output))
    with progress() as tell:
        result = refit_engine(request, tell)
    out.console.print(engine_table(result.path, result.record, title=f"Refitted {result.path}"))
    out.emit(build_document(result, schema="tmdeploy.refit/1"))
