"""`tmdeploy inspect`: what a model file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import JsonOption, Output, TrustOption
from .native_option import NativeOption


def inspect(
    model: Annotated[Path, typer.Argument(help="An .onnx, or a checkpoint.", show_default=False)],
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

    if backend_for(model).name == "pytorch":
        found = inspect_checkpoint(model, trust_checkpoint=trust_checkpoint, arch=arch)
    else:
        found = inspect_onnx(model)
    out = Output(json)
    print_inspection(found, out.console)
    out.emit(found)
