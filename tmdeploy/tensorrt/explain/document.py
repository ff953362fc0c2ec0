"""What `tmdeploy inspect model.plan` finds. The JSON document has schema `tmdeploy.inspect-engine/2`.

If the engine can be loaded, TensorRT's inspector lists its layers; otherwise the listing that the build left beside
the engine is shown. The document says which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from tmdeploy.errors import ArtifactError, EnvironmentMissing, TmdeployError
from tmdeploy.report.schemas.document import Result
from tmdeploy.tensorrt.explain.layer_times import LayerTimes, time_layers
from tmdeploy.tensorrt.explain.loaded import LoadedEngine, inspect_loaded
from tmdeploy.tensorrt.record.layers import IoTensor, Layer, LayerFile, Listing, layers_path, read_layers_file
from tmdeploy.tensorrt.record.sidecar import EngineRecord
from tmdeploy.tensorrt.run.amounts import amounts_for, check_batch
from tmdeploy.tensorrt.run.compatibility import Fit, check_fit, read_engine


class EngineInspection(Result):
    """An engine, whether it would run on this machine, and its layers.

    Attributes:
        engine: The sidecar.
        runs_here: Whether it would run on this machine.
        listings: Layers: one listing per profile from the inspector, or one from the build log; may be empty.
        listings_note: Why there are none, or why they are not the inspector's.
        io: Inputs and outputs: location, format, ranges.
        loaded: TensorRT's account of the loaded engine.
        times: Layer times, if they were asked for.
    """

    schema_: str = Field(default="tmdeploy.inspect-engine/2", alias="schema")
    path: str
    engine: EngineRecord
    runs_here: bool
    reason: str = Field(default="", description="why it does not, and what to do")
    listings: tuple[Listing, ...] = ()
    listings_note: str = ""
    io: tuple[IoTensor, ...] = ()
    loaded: LoadedEngine | None = None
    times: LayerTimes | None = None


@dataclass(frozen=True)
class TimesRequest:
    """A layer-time profile to make.

    Attributes:
        batch: Images per run; None takes the optimum of the first profile.
        schedule: Amounts, one per step or one for all; None takes the file's default.
        iterations: Runs that are timed.
        warm_up: Runs before them.
    """

    batch: int | None = None
    schedule: tuple[int, ...] | None = None
    iterations: int = 50
    warm_up: int = 10


def inspect_engine(path: Path, times: TimesRequest | None = None) -> EngineInspection:
    """Read an engine's header and sidecar, see whether it fits this machine, and list its layers.

    Args:
        path: The engine.
        times: Also time its layers.

    Raises:
        ArtifactError: No engine, a damaged one, or one without its sidecar.
        EnvironmentMissing: Times were asked for, and the engine does not run here.
        UsageError: The batch or schedule to time is outside the profiles.
    """
    record = read_engine(path)
    try:
        stored, note = read_layers_file(path, engine_sha256=record.sha256), ""
    except ArtifactError as error:  # the engine itself is in order
        stored, note = None, error.one_line()
    if times is not None:
        return _timed(path, check_fit(path), stored, note, times)
    try:
        fit = check_fit(path)
    except TmdeployError as error:
        return _described(path, record, stored, note, runs_here=False, reason=error.one_line())
    return _loaded(path, fit, stored, note)


def _described(
    path: Path, record: EngineRecord, stored: LayerFile | None, note: str, *, runs_here: bool, reason: str = ""
) -> EngineInspection:
    """The inspection of an engine that is not loaded, from the files beside it."""
    return EngineInspection(
        path=str(path),
        engine=record,
        runs_here=runs_here,
        reason=reason,
        listings=() if stored is None else stored.listings,
        listings_note=note or (_no_listing(path, record) if stored is None else ""),
        io=() if stored is None else stored.io,
    )


def _loaded(path: Path, fit: Fit, stored: LayerFile | None, note: str) -> EngineInspection:
    found = _described(path, fit.record, stored, note, runs_here=True)
    try:
        loaded = inspect_loaded(path, fit, {} if stored is None else stored.roles)
    except (ArtifactError, EnvironmentMissing) as error:
        return found.model_copy(update={"listings_note": f"nothing from TensorRT itself: {error.one_line()}"})
    changes: dict[str, object] = {"loaded": loaded.model_copy(update={"listings": ()}), "io": loaded.io}
    detailed = any(layer.type for listing in loaded.listings for layer in listing.layers)
    if loaded.listings and (detailed or stored is None):
        changes["listings"] = loaded.listings
        changes["listings_note"] = "" if detailed else f"names only: {_verbosity(fit.record, path)}"
    return found.model_copy(update=changes)


def _timed(path: Path, fit: Fit, stored: LayerFile | None, note: str, times: TimesRequest) -> EngineInspection:
    record = fit.record
    batch = times.batch or record.profiles[0].opt
    check_batch(record, batch, name=path.name, doing="Profile")
    schedule = times.schedule
    if schedule is not None and len(schedule) == 1 and record.schedule is not None:
        schedule = schedule * len(record.schedule.max)
    amounts = amounts_for(record, schedule, name=path.name)
    found = _loaded(path, fit, stored, note)
    listing: list[Layer] = [layer for listing in found.listings for layer in listing.layers]
    measured = time_layers(
        path, fit, listing, batch=batch, schedule=amounts, iterations=times.iterations, warm_up=times.warm_up
    )
    return found.model_copy(update={"times": measured})


def _no_listing(path: Path, record: EngineRecord) -> str:
    if record.options.profiling_verbosity != "detailed":
        return _verbosity(record, path)
    if record.kernels is None:
        return "the build log did not list them; on the GPU it was built for, inspect asks the engine itself"
    return f"{layers_path(path).name} is not beside the engine: copy it from where the engine was built"


def _verbosity(record: EngineRecord, path: Path) -> str:
    return (
        f"it was built with --profiling-verbosity {record.options.profiling_verbosity}; "
        f"build {path.name} with --profiling-verbosity detailed to have kernels and fused nodes"
    )
