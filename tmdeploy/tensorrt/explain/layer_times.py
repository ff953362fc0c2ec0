"""How long each layer of an engine takes, by TensorRT's own profiler. Needs a GPU (docs/status.md).

TensorRT waits for every layer while it is profiled and launches no CUDA graph, so the layers take longer in
sum than the engine does on its own. Read the shares, not the times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tmdeploy.errors import ArtifactError
from tmdeploy.tensorrt.record.layers import Layer
from tmdeploy.tensorrt.run.compatibility import Fit
from tmdeploy.tensorrt.run.session import Session

NOTE = "TensorRT profiles layer by layer, without overlap and without a CUDA graph: the sum exceeds the latency"
_SEED = 0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerTime(_Frozen):
    """One layer: the median over the iterations, milliseconds, and its share of the sum of medians."""

    name: str
    kind: str
    blocks: tuple[int, ...] = ()
    median_ms: float
    share: float


class StepTime(_Frozen):
    """One reduction step."""

    block: int
    alone_ms: float = Field(description="layers with nodes of the step alone")
    shared_ms: float = Field(description="layers that also hold nodes of the model")


class LayerTimes(_Frozen):
    """A layer-time profile."""

    batch: int
    schedule: tuple[int, ...] | None
    iterations: int
    warm_up: int
    total_ms: float = Field(description="sum of the medians")
    kinds: dict[str, float] = Field(description="milliseconds by kind, longest first")
    steps: tuple[StepTime, ...]
    steps_ms: float = Field(description="layers that belong to reduction steps alone")
    steps_share: float
    unknown_layers: int = Field(description="timed under a name that the listing does not have")
    layers: tuple[LayerTime, ...]
    note: str = NOTE


def time_layers(
    path: Path,
    fit: Fit,
    listing: Sequence[Layer],
    *,
    batch: int,
    schedule: Sequence[int] | None,
    iterations: int,
    warm_up: int,
) -> LayerTimes:
    """Run an engine on random images under TensorRT's profiler.

    Args:
        path: The engine.
        fit: The result of `check_fit`.
        listing: Its layers, to classify the names.
        batch: Images per run.
        schedule: Values of the shape input; None if there is none.
        iterations: Runs that are timed.
        warm_up: Untimed runs before them.

    Raises:
        ArtifactError: It does not load, or TensorRT reported no times.
        DataError: No profile holds the batch.
    """
    profiler = make_profiler(fit.toolkit.module)
    session = Session(path, fit, graphs=False)
    try:
        images = _images(fit, batch)
        for _ in range(warm_up):
            session.run(images, schedule)
        session.profile_with(profiler)
        for _ in range(iterations):
            profiler.begin()
            session.run(images, schedule)
            if not session.report_profile():
                raise ArtifactError("TensorRT did not report the times of its layers", path=path)
    finally:
        session.close()
    if not any(profiler.runs):
        raise ArtifactError(
            "TensorRT reported no layer", path=path, remedy="Build it with --profiling-verbosity detailed"
        )
    return summarise(profiler.runs, listing, batch=batch, schedule=schedule, warm_up=warm_up)


def make_profiler(module: Any) -> Any:
    """An `IProfiler` with the times of every run in `runs`: one dictionary per run, milliseconds by layer name."""

    class _Profiler(module.IProfiler):  # type: ignore[misc]  # a class of a package without types
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.runs: list[dict[str, float]] = []

        def begin(self) -> None:
            self.runs.append({})

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            run = self.runs[-1]
            run[layer_name] = run.get(layer_name, 0.0) + ms

    return _Profiler()


def summarise(
    runs: Sequence[dict[str, float]],
    listing: Sequence[Layer],
    *,
    batch: int,
    schedule: Sequence[int] | None,
    warm_up: int,
) -> LayerTimes:
    """Medians, shares and sums of what the profiler reported."""
    known = {layer.name: layer for layer in listing}
    names = list(dict.fromkeys(name for run in runs for name in run))
    medians = {name: median(run.get(name, 0.0) for run in runs) for name in names}
    total = sum(medians.values())
    by_kind: dict[str, float] = {}
    alone: dict[int, float] = {}
    shared: dict[int, float] = {}
    times = []
    for name, time in medians.items():
        layer = known.get(name)
        kind, blocks = ("unknown", ()) if layer is None else (layer.kind, layer.blocks)
        by_kind[kind] = by_kind.get(kind, 0.0) + time
        for block in blocks:  # a layer of two steps counts half for each
            side = alone if kind == "step" else shared
            side[block] = side.get(block, 0.0) + time / len(blocks)
        times.append(
            LayerTime(name=name, kind=kind, blocks=blocks, median_ms=time, share=time / total if total else 0.0)
        )
    steps = tuple(
        StepTime(block=block, alone_ms=alone.get(block, 0.0), shared_ms=shared.get(block, 0.0))
        for block in sorted({*alone, *shared})
    )
    of_steps = by_kind.get("step", 0.0)
    return LayerTimes(
        batch=batch,
        schedule=None if schedule is None else tuple(schedule),
        iterations=len(runs),
        warm_up=warm_up,
        total_ms=total,
        kinds=dict(sorted(by_kind.items(), key=lambda item: -item[1])),
        steps=steps,
        steps_ms=of_steps,
        steps_share=of_steps / total if total else 0.0,
        unknown_layers=sum(name not in known for name in names),
        layers=tuple(times),
    )


def _images(fit: Fit, batch: int) -> np.ndarray[Any, Any]:
    """Random images: the planners depend on the content, so zeros would be a special case."""
    image = next(tensor for tensor in fit.record.inputs if not tensor.shape_input)
    shape = (batch, *image.shape[1:])
    random = np.random.default_rng(_SEED)
    if image.type == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32)
