"""The measuring harness: calls in interleaved rounds, warmed up until stable, compared round by round."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tmdeploy.bench.pace import Pace
from tmdeploy.errors import UsageError
from tmdeploy.system.progress import Progress, silent

Clock = Callable[[], float]
PERCENTILES = (50.0, 90.0, 99.0)
LEAST_ROUNDS = 3  # fewer say nothing about the spread between rounds
_WINDOWS, _WINDOW_CALLS, _AGREE = 3, 3, 0.03


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        warm_up_s: Each call runs at least this long first, and then until three windows of calls agree within 3 %.
        warm_up_limit_s: But no longer than this.
        duration_s: Measured time of each, over all rounds, at least.
        iterations: How often each is measured, over all rounds, at least.
        rounds: Each is measured this many times, in an order shuffled anew each round.
        percentiles: Percentiles of the measured times, in (0, 100].
        seed: Seed of the random order.

    Raises:
        UsageError: Fewer than three rounds, no calls, or a percentile that is none.
    """

    warm_up_s: float = 0.2
    warm_up_limit_s: float = 5.0
    duration_s: float = 3.0
    iterations: int = 20
    rounds: int = 5
    percentiles: tuple[float, ...] = PERCENTILES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise UsageError(
                f"{self.rounds} round(s) show no spread, so nothing could be compared",
                remedy=f"Measure at least {LEAST_ROUNDS} rounds",
            )
        if self.iterations < 1:
            raise UsageError("an arm is measured at least once")
        wrong = [value for value in self.percentiles if not 0.0 < value <= 100.0]
        if wrong:
            raise UsageError(f"a percentile is above 0 and at most 100, not {wrong[0]:g}")

    @property
    def work_of_a_call(self) -> float:
        """What is planned of it, seconds; slow models take longer, all alike."""
        return self.warm_up_s + self.duration_s


@dataclass
class TimedCall:
    """Something that is called again and again, and how long it took each time.

    Attributes:
        name: For tables; unique.
        run: Runs one batch.
        read: What a run measured by itself, seconds by name; asked after the clock has stopped. None: nothing.
        watch: Asked before and after each round, while the call is warm; None: nothing to watch.
        rounds: Measured seconds of every run, by round.
        readings: What `read` gave, by name and round.
        watched: What `watch` gave, before and after, by round.
        positions: When it was measured, by round: 0 for the round's first call.
        stable: Whether warm-up ended because the windows agreed.
    """

    name: str
    run: Callable[[], object]
    read: Callable[[], Mapping[str, Sequence[float]]] | None = None
    watch: Callable[[], object] | None = None
    rounds: list[list[float]] = field(default_factory=list)
    readings: dict[str, list[list[float]]] = field(default_factory=dict)
    watched: list[tuple[object, object]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    stable: bool = False

    @property
    def samples(self) -> list[float]:
        """All measured runs, seconds."""
        return [sample for one in self.rounds for sample in one]

    @property
    def round_medians(self) -> list[float]:
        """The median run of each round, seconds."""
        return [statistics.median(one) for one in self.rounds]


@dataclass(frozen=True)
class Latency:
    """Statistics of a timed call.

    Attributes:
        median_ms: Time of a batch; median of the rounds' medians.
        mean_ms: Mean of all runs.
        min_ms: Minimum of all runs.
        percentiles_ms: By percentile, of all runs.
        cv: Coefficient of variation of all runs.
        calls: How many were measured.
    """

    median_ms: float
    mean_ms: float
    min_ms: float
    percentiles_ms: dict[str, float]
    cv: float
    calls: int


@dataclass(frozen=True)
class Ratio:
    """How long one call takes relative to another: median of the per-round ratios, and their range."""

    median: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether every round says the same call is faster."""
        return self.high < 1.0 or self.low > 1.0


def measure(
    calls: Sequence[TimedCall],
    protocol: Protocol,
    *,
    clock: Clock = time.perf_counter,
    pace: Pace | None = None,
    progress: Progress = silent,
) -> None:
    """Warm every call up, then measure them in interleaved rounds; they are filled in place.

    Args:
        calls: What to measure.
        protocol: How.
        clock: Seconds; replaceable for tests.
        pace: Is told what is done, by `Protocol.work_of_a_call`, and asked how long the rest takes.
        progress: Called with a short description.
    """
    pace = pace or Pace(protocol.work_of_a_call * len(calls))
    for call in calls:
        progress(f"warming up {call.name}{pace.left()}")
        call.stable = _warm_up(call.run, protocol, clock)
        pace.did(protocol.warm_up_s)
    order = random.Random(protocol.seed)  # noqa: S311 - shuffles, guards nothing
    for number in range(protocol.rounds):
        shuffled = list(calls)
        order.shuffle(shuffled)
        for position, call in enumerate(shuffled):
            progress(f"round {number + 1} of {protocol.rounds}: {call.name}{pace.left()}")
            with _no_garbage_collection():
                call.run()  # the one before left the caches to itself
                before = None if call.watch is None else call.watch()
                _round(call, protocol, clock)
            if call.watch is not None:
                call.watched.append((before, call.watch()))
            call.positions.append(position)
            pace.did(protocol.duration_s / protocol.rounds)


def _warm_up(run: Callable[[], object], protocol: Protocol, clock: Clock) -> bool:
    """Run windows of a third of the warm-up time each, at least three runs; say whether the last three agreed."""
    start = clock()
    medians: list[float] = []
    while True:
        window: list[float] = []
        opened = clock()
        while len(window) < _WINDOW_CALLS or clock() - opened < protocol.warm_up_s / _WINDOWS:
            window.append(_timed(run, clock))
        medians.append(statistics.median(window))
        elapsed, recent = clock() - start, medians[-_WINDOWS:]
        if elapsed >= protocol.warm_up_s and len(recent) == _WINDOWS and max(recent) <= min(recent) * (1 + _AGREE):
            return True
        if elapsed >= protocol.warm_up_limit_s:
            return False


def _round(call: TimedCall, protocol: Protocol, clock: Clock) -> None:
    samples: list[float] = []
    read: dict[str, list[float]] = {}
    least, budget = math.ceil(protocol.iterations / protocol.rounds), protocol.duration_s / protocol.rounds
    start = clock()
    while len(samples) < least or clock() - start < budget:
        samples.append(_timed(call.run, clock))
        if call.read is not None:
            for name, values in call.read().items():
                read.setdefault(name, []).extend(values)
    call.rounds.append(samples)
    for name, values in read.items():
        call.readings.setdefault(name, []).append(values)


def _timed(run: Callable[[], object], clock: Clock) -> float:
    before = clock()
    run()
    return clock() - before


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a call would be counted as the model's, so it waits, as in timeit."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def latency(call: TimedCall, percentiles: Sequence[float] = PERCENTILES) -> Latency:
    """Statistics of a measured call; percentiles interpolate linearly between the two nearest runs."""
    samples = np.array(call.samples) * 1e3
    mean = float(samples.mean())
    values = np.percentile(samples, percentiles)
    return Latency(
        median_ms=statistics.median(call.round_medians) * 1e3,
        mean_ms=mean,
        min_ms=float(samples.min()),
        percentiles_ms={f"{wanted:g}": float(value) for wanted, value in zip(percentiles, values, strict=True)},
        cv=float(samples.std() / mean) if mean else 0.0,
        calls=len(samples),
    )


def ratio(call: TimedCall, baseline: TimedCall) -> Ratio:
    """Time of `call` over time of `baseline`, each round's medians against each other."""
    ratios = [ours / theirs for ours, theirs in zip(call.round_medians, baseline.round_medians, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))
