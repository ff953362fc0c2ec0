"""The timed calls of an engine, and what CUDA events said about them; statistics as trtexec defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.engine import EngineTimer
from tmdeploy.bench.arm import Arm, EngineMode
from tmdeploy.bench.timing import TimedCall
from tmdeploy.report.schemas.bench import Clocks, GpuTimes, Spread
from tmdeploy.tensorrt.cuda.clocks import ClockReading

Watch = Callable[[], ClockReading | None]


@dataclass(frozen=True)
class EngineCalls:
    """The two ways in which one engine is timed in one mode.

    Attributes:
        mode: How it is called.
        single: One call at a time.
        queued: Many calls at once, waited for at the end.
        timer: Behind both.
    """

    mode: EngineMode
    single: TimedCall
    queued: TimedCall
    timer: EngineTimer


def engine_calls(arm: Arm, images: NDArray[np.generic], watch: Watch | None) -> EngineCalls:
    """What to measure of an engine.

    Args:
        arm: The engine and how to call it.
        images: One batch.
        watch: Reads the GPU's clocks; None where nothing can.

    Raises:
        UsageError: No profile holds the batch.
    """
    engine, mode = arm.runner.engine, arm.mode
    assert engine is not None and mode is not None  # noqa: S101, PT018 - engines have modes, and nothing else has
    timer = engine.timer(images, arm.schedule, graph=mode.cuda_graph, transfers=mode.transfers)
    single = TimedCall(arm.name, timer.call, read=timer.read, watch=watch)
    queued = TimedCall(f"{arm.name}, queued", timer.queue, read=timer.read, watch=watch)
    return EngineCalls(mode, single, queued, timer)


def gpu_times(calls: EngineCalls, batch: int, percentiles: Sequence[float]) -> GpuTimes:
    """Statistics of a measured engine.

    Args:
        calls: Measured.
        batch: Images per call.
        percentiles: Which.
    """
    single, queued = calls.single, calls.queued
    host = {"host": spread(single.samples, percentiles)}
    return GpuTimes(
        cuda_graph=calls.mode.cuda_graph,
        transfers=calls.mode.transfers,
        single={**spreads(single, percentiles), **host},
        queued=spreads(queued, percentiles),
        single_images_per_s=batch * len(single.samples) / sum(single.samples),
        queued_images_per_s=batch * calls.timer.queued * len(queued.samples) / sum(queued.samples),
        clocks=_clocks([single, queued]),
    )


def spread(seconds: Sequence[float], percentiles: Sequence[float]) -> Spread:
    """Trtexec's statistics (NVIDIA/TensorRT, samples/common/sampleReporting.cpp).

    A percentile is a call that was measured, the one that floor((1 - p / 100) n) calls were slower than; the
    coefficient of variation divides by n, not n - 1.

    Args:
        seconds: One value a call, at least one.
        percentiles: In (0, 100].
    """
    times = np.sort(np.asarray(seconds, np.float64)) * 1e3
    mean, count = float(times.mean()), len(times)
    # 100 - 99.9 is a little less than 0.1: without the addend, a floor of a whole number could be one too small
    slower = [int((100.0 - wanted) * count / 100.0 + 1e-9) for wanted in percentiles]
    return Spread(
        median_ms=float(np.median(times)),
        mean_ms=mean,
        min_ms=float(times[0]),
        max_ms=float(times[-1]),
        cv=float(times.std()) / mean if mean else 0.0,
        percentiles_ms={
            f"{wanted:g}": float(times[max(count - 1 - excluded, 0)])
            for wanted, excluded in zip(percentiles, slower, strict=True)
        },
        calls=count,
    )


def spreads(call: TimedCall, percentiles: Sequence[float]) -> dict[str, Spread]:
    """Statistics of everything that a call measured by itself, over all rounds."""
    return {
        name: spread([value for one in rounds for value in one], percentiles) for name, rounds in call.readings.items()
    }


def _clocks(calls: Sequence[TimedCall]) -> Clocks | None:
    pairs = [pair for call in calls for pair in call.watched]
    readings = [one for pair in pairs for one in pair if isinstance(one, ClockReading)]
    if not readings:
        return None
    speeds = [reading.sm_mhz for reading in readings]
    throttled = {reason for reading in readings for reason in reading.throttled}
    return Clocks(
        sm_mhz_low=min(speeds), sm_mhz_high=max(speeds), readings=len(readings), throttled=tuple(sorted(throttled))
    )
