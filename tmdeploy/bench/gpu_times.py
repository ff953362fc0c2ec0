"""Harness arms of an engine, and what CUDA events said about them; statistics as trtexec defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.tensorrt import TensorrtRunner
from tmdeploy.bench.contender import Contender, EngineMode
from tmdeploy.bench.timing import Arm
from tmdeploy.report.schemas.bench import Clocks, GpuTimes, Spread
from tmdeploy.tensorrt.cuda.clocks import ClockReading
from tmdeploy.tensorrt.run.timing import QUEUED, EngineTimer

Watch = Callable[[], ClockReading | None]


@dataclass(frozen=True)
class EngineArms:
    """The two harness arms of one engine in one mode.

    Attributes:
        mode: How it is called.
        single: One call at a time.
        queued: Many calls at once, waited for at the end.
        timer: Behind both.
    """

    mode: EngineMode
    single: Arm
    queued: Arm
    timer: EngineTimer


def engine_arms(contender: Contender, images: NDArray[np.generic], watch: Watch | None) -> EngineArms:
    """What to measure of an engine.

    Args:
        contender: The engine and how to call it.
        images: One batch.
        watch: Reads the GPU's clocks; None where nothing can.

    Raises:
        UsageError: No profile holds the batch.
    """
    runner, mode = contender.runner, contender.mode
    assert isinstance(runner, TensorrtRunner)  # noqa: S101 - only engines have modes
    assert mode is not None  # noqa: S101
    timer = runner.timer(images, contender.schedule, graph=mode.cuda_graph, transfers=mode.transfers)
    single = Arm(contender.name, timer.call, read=timer.read, watch=watch)
    queued = Arm(f"{contender.name}, queued", timer.queue, read=timer.read, watch=watch)
    return EngineArms(mode, single, queued, timer)


def gpu_times(arms: EngineArms, batch: int, percentiles: Sequence[float]) -> GpuTimes:
    """Statistics of a measured engine.

    Args:
        arms: Measured.
        batch: Images a call.
        percentiles: Which.
    """
    single, queued = arms.single, arms.queued
    host = {"host": spread(single.samples, percentiles)}
    return GpuTimes(
        cuda_graph=arms.mode.cuda_graph,
        transfers=arms.mode.transfers,
        single={**spreads(single, percentiles), **host},
        queued=spreads(queued, percentiles),
        single_images_per_s=batch * len(single.samples) / sum(single.samples),
        queued_images_per_s=batch * QUEUED * len(queued.samples) / sum(queued.samples),
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


def spreads(arm: Arm, percentiles: Sequence[float]) -> dict[str, Spread]:
    """Statistics of everything that an arm measured by itself, over all rounds."""
    return {
        name: spread([value for one in rounds for value in one], percentiles) for name, rounds in arm.readings.items()
    }


def _clocks(arms: Sequence[Arm]) -> Clocks | None:
    pairs = [pair for arm in arms for pair in arm.watched]
    readings = [one for pair in pairs for one in pair if isinstance(one, ClockReading)]
    if not readings:
        return None
    speeds = [reading.sm_mhz for reading in readings]
    throttled = {reason for reading in readings for reason in reading.throttled}
    return Clocks(
        sm_mhz_low=min(speeds), sm_mhz_high=max(speeds), readings=len(readings), throttled=tuple(sorted(throttled))
    )
