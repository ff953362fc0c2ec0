"""`tmdeploy inspect`: what a model file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import JsonOption, Output, TrustOption
from .native_option import NativeOption


def inspect(
    model: Annotated[Path, typer.Argument(help="An .onnx, a checkpoint, or an engine.", show_default=False)],
    arch: Annotated[str | None, typer.Option(help="Architecture of a checkpoint, by name.")] = None,
    native: NativeOption = True,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Show metadata, inputs, schedule, token counts per block and MACs of a model file.

    [dim]tmdeploy inspect deit_s.onnx[/dim]
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.inspection import inspect_checkpoint, inspect_onnx
    from tmdeploy.report.inspection import print_inspection

    if backend_for(model).name == "tensorrt":
        _inspect_engine(model, Output(json))
        return
    if backend_for(model).name == "pytorch":
        found = inspect_checkpoint(model, trust_checkpoint=trust_checkpoint, arch=arch)
    else:
        found = inspect_onnx(model)
    out = Output(json)
    print_inspection(found, out.console)
    out.emit(found)


def _inspect_engine(engine: Path, out: Output) -> None:
    from tmdeploy.engine.inspection import inspect_engine
    from tmdeploy.report.engine import engine_table, step_table

    found = inspect_engine(engine)
    out.console.print(engine_table(engine, found.engine, title=str(engine)))
    steps = step_table(found.engine)
    if steps is not None:
        out.console.print(steps)
    if found.runs_here:
        out.console.print("[green]runs on this machine[/green]")
    else:
        out.console.print(
            "[yellow]does not run on this machine:[/yellow]", found.reason.replace("[", r"\["), soft_wrap=True
        )
    out.emit(found)
