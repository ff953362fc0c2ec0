"""`tmdeploy inspect`: what a model file says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tmdeploy.api.inspect import inspect as verb
from tmdeploy.api.inspect import not_an_engine

from .command import Call, command

if TYPE_CHECKING:
    from tmdeploy.report.console import PlainConsole
    from tmdeploy.tensorrt.explain.document import EngineInspection


@command(verb, "layers", "timeout", "native", "trust_engine")
def inspect(call: Call, layers: bool) -> None:
    """Show metadata, inputs, schedule, token counts per block and MACs of a model file; layers and memory of an engine.

    --batch, --iterations, --r, --keep and --schedule are those of the runs that --profile times.

    tmdeploy inspect deit_s.onnx
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.report.tables.inspection import print_inspection

    model = call["model"]
    out = call.output(reads=[model])
    is_engine = backend_for(model).name == "tensorrt"
    if layers and not is_engine:
        raise not_an_engine("--layers", model)
    found = call()
    if is_engine:
        _print_engine(found, out.console, full=layers)
    else:
        print_inspection(found, out.console)
    out.emit(found)


def _print_engine(found: EngineInspection, console: PlainConsole, *, full: bool) -> None:
    from pathlib import Path

    from tmdeploy.report.tables.engine import engine_table, step_table
    from tmdeploy.report.tables.layers import print_layers, print_times
    from tmdeploy.report.text import styled

    console.print(engine_table(Path(found.path), found.engine, title=found.path))
    steps = step_table(found.engine)
    if steps is not None:
        console.print(steps)
    print_layers(found, console, full=full)
    if found.times is not None:
        print_times(found.times, console, full=full)
    if found.runs_here:
        console.print(styled(("runs on this machine", "green")))
    else:
        console.print(styled(("does not run on this machine: ", "yellow"), found.reason), soft_wrap=True)
