"""`tmdeploy.inspect`: what a model file says about itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Amounts, Checkpoint, FilePath
from tmdeploy.api.schedules import Asked, Reducer, amounts_of, asked_for, one_of
from tmdeploy.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.inspection import Inspection
    from tmdeploy.tensorrt.explain.document import EngineInspection, TimesRequest


def inspect(
    model: FilePath,
    *,
    profile: bool = False,
    batch: int | None = None,
    r: Amounts | None = None,
    keep: Amounts | None = None,
    schedule: Amounts | None = None,
    iterations: int | None = None,
    **checkpoint: Unpack[Checkpoint],
) -> Inspection | EngineInspection:
    """Read metadata, inputs, schedule, token counts and MACs of a model file; layers and memory of an engine.

        tmdeploy.inspect("deit_s.onnx").macs

    Args:
        model: An `.onnx`, a checkpoint or an engine.
        profile: Time every layer of an engine, which needs its GPU; the options that follow are for that.
        batch: Images per run; None takes what it is tuned for.
        r: Tokens to merge per block: 13, "26:0", [8, 8, 4].
        keep: Patch tokens to keep per step: 0.7, [138, 97, 68].
        schedule: Either of the two, whichever the model takes.
        iterations: Runs to take the median of; None takes 50.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        UsageError: An option that cannot be meant.
        ArtifactError, CheckpointError: The file is missing, truncated or foreign.
        EnvironmentMissing: What it takes to read or time it is not here.
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.inspection import inspect_checkpoint, inspect_onnx

    path = Path(model)
    backend = backend_for(path)
    asked = one_of(asked_for(r, keep, schedule))
    given = [option for option, value in (("--batch", batch), ("--iterations", iterations)) if value is not None]
    for option in given + ([] if asked is None else [asked.option]):
        if not profile:
            raise UsageError(f"{option}: only a layer-time profile has it", remedy="Add --profile")
    if backend.name == "tensorrt":
        from tmdeploy.tensorrt.explain.document import inspect_engine

        return inspect_engine(path, _times(path, batch, asked, iterations) if profile else None)
    if profile:
        raise not_an_engine("--profile", path)
    return inspect_checkpoint(path, **checkpoint) if backend.reads_checkpoints else inspect_onnx(path)


def not_an_engine(option: str, path: Path) -> UsageError:
    """For an option that only engines have."""
    return UsageError(f"{option}: only an engine has layers of its own; {path} is none", remedy="Name a .plan")


def _times(engine: Path, batch: int | None, asked: Asked | None, iterations: int | None) -> TimesRequest:
    from tmdeploy.tensorrt.explain.document import TimesRequest
    from tmdeploy.tensorrt.record.sidecar import read_sidecar

    amounts = None
    if asked is not None:
        record = read_sidecar(engine)
        if record.card is None:
            raise UsageError(f"{engine} carries no tmdeploy metadata, so it takes no {asked.option}")
        amounts = amounts_of(asked, Reducer(str(engine), record.card, fixed=record.schedule is None))
    request = TimesRequest(batch, amounts)
    return request if iterations is None else replace(request, iterations=iterations)
