"""The measuring harness: arms in interleaved rounds, warmed up until stable, compared round by round."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Clock = Callable[[], float]
_WINDOWS, _WINDOW_CALLS, _AGREE = 3, 5, 0.03


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        warm_up_s: Each arm runs at least this long first, and then until three windows of calls agree within 3 %.
        warm_up_limit_s: But no longer than this.
        duration_s: Measured time of an arm, over all rounds, at least.
        iterations: Measured calls of an arm, over all rounds, at least.
        rounds: Each arm is measured this many times, in an order shuffled anew each round.
        seed: Of the order.
    """

    warm_up_s: float = 0.2
    warm_up_limit_s: float = 5.0
    duration_s: float = 3.0
    iterations: int = 20
    rounds: int = 5
    seed: int = 0


@dataclass
class Arm:
    """One thing to measure: a call, and what came of it.

    Attributes:
        name: For tables.
        call: Runs one batch.
        rounds: Measured seconds of every call, by round.
        stable: Whether warm-up ended because the windows agreed.
    """

    name: str
    call: Callable[[], object]
    rounds: list[list[float]] = field(default_factory=list)
    stable: bool = False

    @property
    def samples(self) -> list[float]:
        """All measured calls, seconds."""
        return [sample for one in self.rounds for sample in one]


@dataclass(frozen=True)
class Latency:
    """Statistics of one arm, milliseconds a batch."""

    median_ms: float  # of the rounds' medians
    mean_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cv: float
    calls: int


@dataclass(frozen=True)
class Ratio:
    """How long one arm takes relative to another: median of the per-round ratios, and their range."""

    median: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether every round says the same arm is faster."""
        return self.high < 1.0 or self.low > 1.0


def measure(
    arms: Sequence[Arm],
    protocol: Protocol,
    *,
    clock: Clock = time.perf_counter,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Warm every arm up, then measure them in interleaved rounds; the arms are filled in place.

    Args:
        arms: What to measure.
        protocol: How.
        clock: Seconds; replaceable for tests.
        progress: Called with a short description.
    """
    for arm in arms:
        progress(f"warming up {arm.name}")
        arm.stable = _warm_up(arm.call, protocol, clock)
    order = random.Random(protocol.seed)  # noqa: S311 - shuffles, guards nothing
    for number in range(protocol.rounds):
        shuffled = list(arms)
        order.shuffle(shuffled)
        for arm in shuffled:
            progress(f"round {number + 1} of {protocol.rounds}: {arm.name}")
            arm.call()  # the arm before left the caches to itself
            arm.rounds.append(_round(arm.call, protocol, clock))


def _warm_up(call: Callable[[], object], protocol: Protocol, clock: Clock) -> bool:
    start = clock()
    medians: list[float] = []
    while True:
        window = []
        for _ in range(_WINDOW_CALLS):
            before = clock()
            call()
            window.append(clock() - before)
        medians.append(statistics.median(window))
        elapsed, recent = clock() - start, medians[-_WINDOWS:]
        if elapsed >= protocol.warm_up_s and len(recent) == _WINDOWS and max(recent) <= min(recent) * (1 + _AGREE):
            return True
        if elapsed >= protocol.warm_up_limit_s:
            return False


def _round(call: Callable[[], object], protocol: Protocol, clock: Clock) -> list[float]:
    samples: list[float] = []
    least, budget = -(-protocol.iterations // protocol.rounds), protocol.duration_s / protocol.rounds
    start = clock()
    while len(samples) < least or clock() - start < budget:
        before = clock()
        call()
        samples.append(clock() - before)
    return samples


def latency(arm: Arm) -> Latency:
    """Statistics of a measured arm."""
    samples = np.array(arm.samples) * 1e3
    p50, p90, p95, p99 = (float(value) for value in np.percentile(samples, [50, 90, 95, 99]))
    mean = float(samples.mean())
    return Latency(
        median_ms=statistics.median(statistics.median(one) for one in arm.rounds) * 1e3,
        mean_ms=mean,
        min_ms=float(samples.min()),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        cv=float(samples.std() / mean) if mean else 0.0,
        calls=len(samples),
    )


def ratio(arm: Arm, baseline: Arm) -> Ratio:
    """Time of `arm` over time of `baseline`, each round's medians against each other."""
    ratios = [
        statistics.median(ours) / statistics.median(theirs)
        for ours, theirs in zip(arm.rounds, baseline.rounds, strict=True)
    ]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))
