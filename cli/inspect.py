"""`tmdeploy inspect`: what a model file says about itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tmdeploy.errors import UsageError

from .console import (
    ArchOption,
    AssumeOption,
    EmaOption,
    IgnoreExtraOption,
    JsonOption,
    NumHeadsOption,
    Output,
    TrustOption,
)
from .native_option import NativeOption, TrustEngineOption
from .schedule_option import (
    Asked,
    ProfileKeepOption,
    ProfileROption,
    ProfileScheduleOption,
    amounts_of,
    asked_for,
    described,
    one_of,
)

if TYPE_CHECKING:
    from tmdeploy.tensorrt.explain.document import TimesRequest

_PROFILE = "With --profile"


def inspect(
    model: Annotated[Path, typer.Argument(help="An .onnx, a checkpoint, or an engine.", show_default=False)],
    layers: Annotated[bool, typer.Option("--layers", help="Of an engine: list every layer.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Of an engine: time every layer, which needs its GPU.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help=f"{_PROFILE}: images a run; default: what it is tuned for.")
    ] = None,
    r: ProfileROption = None,
    keep: ProfileKeepOption = None,
    schedule: ProfileScheduleOption = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help=f"{_PROFILE}: runs to take the median of.  [default: 50]")
    ] = None,
    arch: ArchOption = None,
    num_heads: NumHeadsOption = None,
    assume: AssumeOption = None,
    ema: EmaOption = False,
    ignore_extra: IgnoreExtraOption = False,
    native: NativeOption = True,
    trust_engine: TrustEngineOption = False,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Show metadata, inputs, schedule, token counts per block and MACs of a model file; layers and memory of an engine.

    tmdeploy inspect deit_s.onnx
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.inspection import inspect_checkpoint, inspect_onnx
    from tmdeploy.report.tables.inspection import print_inspection

    out = Output(json, reads=[model])
    kind = backend_for(model)
    asked = {"--layers": layers, "--profile": profile}
    amounts = one_of(asked_for(r, keep, schedule))
    given = [option for option, value in (("--batch", batch), ("--iterations", iterations)) if value is not None]
    for option in given + ([] if amounts is None else [amounts.option]):
        if not profile:
            raise UsageError(f"{option}: only a layer-time profile has it", remedy="Add --profile")
    if kind.name == "tensorrt":
        times = _times(model, batch, amounts, iterations) if profile else None
        _inspect_engine(model, out, times, full=layers)
        return
    for option in (option for option, wanted in asked.items() if wanted):
        raise UsageError(f"{option}: only an engine has layers of its own; {model} is none", remedy="Name a .plan")
    if kind.reads_checkpoints:
        found = inspect_checkpoint(
            model,
            arch=arch,
            num_heads=num_heads,
            assume=assume or (),
            ema=ema,
            ignore_extra=ignore_extra,
            trust_checkpoint=trust_checkpoint,
        )
    else:
        found = inspect_onnx(model)
    print_inspection(found, out.console)
    out.emit(found)


def _times(engine: Path, batch: int | None, asked: Asked | None, iterations: int | None) -> TimesRequest:
    from tmdeploy.tensorrt.explain.document import TimesRequest
    from tmdeploy.tensorrt.record.sidecar import read_sidecar

    amounts = None
    if asked is not None:
        record = read_sidecar(engine)
        if record.model is None:
            raise UsageError(f"{engine} carries no tmdeploy metadata, so it takes no {asked.option}")
        metadata = record.model.model_copy(update={"runtime_schedule": record.schedule is not None})
        amounts = amounts_of(asked, described(str(engine), metadata))
    request = TimesRequest(batch, amounts)
    return request if iterations is None else replace(request, iterations=iterations)


def _inspect_engine(engine: Path, out: Output, times: TimesRequest | None, *, full: bool) -> None:
    from tmdeploy.report.tables.engine import engine_table, step_table
    from tmdeploy.report.tables.layers import print_layers, print_times
    from tmdeploy.report.text import styled
    from tmdeploy.tensorrt.explain.document import inspect_engine

    found = inspect_engine(engine, times)
    console = out.console
    console.print(engine_table(engine, found.engine, title=str(engine)))
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
    out.emit(found)
