from __future__ import annotations

import gc

import pytest

from tmdeploy.bench.timing import Latency, Protocol, Ratio, TimedCall, latency, measure, ratio
from tmdeploy.errors import UsageError


class FakeTime:
    """A clock that only moves when a call runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def timed(self, name: str, *costs: float) -> TimedCall:
        """A call whose n-th run takes costs[n] seconds; the last cost repeats."""
        pending = list(costs)

        def call() -> None:
            self.calls.append(name)
            self.now += pending.pop(0) if len(pending) > 1 else pending[0]

        return TimedCall(name, call)


FAST = Protocol(warm_up_s=0.0, duration_s=0.0, iterations=5, rounds=5)


def test_every_round_has_every_arm_once_in_a_seeded_shuffled_order():
    orders = []
    for seed in (0, 0, 1):
        time = FakeTime()
        timed = [time.timed(name, 0.01) for name in "ABC"]
        told: list[str] = []
        protocol = Protocol(warm_up_s=0.0, duration_s=0.0, iterations=8, rounds=8, seed=seed)
        measure(timed, protocol, clock=time, progress=told.append)
        rounds = [text.rpartition(" ")[2] for text in told if text.startswith("round")]
        orders.append(["".join(rounds[i : i + 3]) for i in range(0, 24, 3)])
        assert all(sorted(order) == ["A", "B", "C"] for order in orders[-1])
        assert [order.index("B") for order in orders[-1]] == timed[1].positions
        assert told[:3] == ["warming up A", "warming up B", "warming up C"]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) > 2, "the order changes between rounds"


def test_a_slow_drift_cancels_in_the_ratio():
    """The machine slows down by half from round to round; A always takes 0.8 of B's time."""
    time, speed = FakeTime(), {"factor": 1.0}

    def call(cost: float) -> None:
        time.now += cost * speed["factor"]

    timed = [TimedCall("A", lambda: call(0.8)), TimedCall("B", lambda: call(1.0))]

    def on(text: str) -> None:
        if text.startswith("round"):
            speed["factor"] = 1.5 ** int(text.split()[1])

    measure(timed, FAST, clock=time, progress=on)
    assert latency(timed[0]).cv > 0.3
    found = ratio(*timed)
    assert (found.median, found.low, found.high) == pytest.approx((0.8, 0.8, 0.8))
    assert found.decided


def test_measured_time_and_calls_are_both_at_least_what_was_asked():
    time = FakeTime()
    quick, slow = time.timed("quick", 0.01), time.timed("slow", 2.0)
    measure([quick, slow], Protocol(warm_up_s=0.0, duration_s=3.0, iterations=10, rounds=5), clock=time)
    assert [len(one) for one in quick.rounds] == pytest.approx([60] * 5, abs=1)  # 0.6 s a round
    assert [len(one) for one in slow.rounds] == [2] * 5  # 10 calls over 5 rounds


def test_warm_up_runs_until_windows_agree_and_is_not_measured():
    time = FakeTime()
    timed = time.timed("A", *[1.0] * 6, *[0.5] * 3, 0.1)
    measure([timed], Protocol(warm_up_s=0.0, warm_up_limit_s=100.0, duration_s=0.0, iterations=3, rounds=3), clock=time)
    assert timed.stable
    # windows of three calls: 1.0, 1.0, 0.5, then 0.1 three times
    assert len(time.calls) == 3 * 6 + 3 * 2  # and in each round one unmeasured and one measured call
    assert timed.samples == pytest.approx([0.1] * 3)


def test_warm_up_runs_for_the_time_asked_for():
    time = FakeTime()
    timed = time.timed("A", 0.01)
    measure([timed], Protocol(warm_up_s=3.0, warm_up_limit_s=10.0, duration_s=0.0, iterations=3, rounds=3), clock=time)
    assert timed.stable
    assert len(time.calls) - 6 == pytest.approx(300, abs=4)


def test_warm_up_gives_up_at_its_limit_and_says_so():
    time = FakeTime()
    restless = time.timed("A", *[1.1**i for i in range(60)])
    measure([restless], Protocol(warm_up_s=0.1, warm_up_limit_s=20.0, duration_s=0.0, iterations=3), clock=time)
    assert not restless.stable


def test_statistics():
    timed = TimedCall("A", lambda: None, rounds=[[0.001, 0.002, 0.003], [0.010], [0.004, 0.006]])
    assert latency(timed, (50, 75, 100)) == Latency(
        median_ms=pytest.approx(5.0),  # of 2, 10 and 5
        mean_ms=pytest.approx(26 / 6),
        min_ms=pytest.approx(1.0),
        percentiles_ms={"50": pytest.approx(3.5), "75": pytest.approx(5.5), "100": pytest.approx(10.0)},
        cv=pytest.approx((80 / 9) ** 0.5 / (26 / 6)),
        calls=6,
    )


@pytest.mark.parametrize(
    ("ours", "decided", "median"),
    [([8, 8, 9], True, 0.8), ([8, 8, 10.1], False, 0.8), ([11, 12, 13], True, 1.2), ([10, 10, 10], False, 1.0)],
)
def test_no_winner_unless_every_round_agrees(ours: list[float], decided: bool, median: float):
    timed = TimedCall("A", lambda: None, rounds=[[value] for value in ours])
    found = ratio(timed, TimedCall("B", lambda: None, rounds=[[10.0]] * 3))
    assert (found.decided, found.median) == (decided, median)
    assert (found.low, found.high) == (min(ours) / 10, max(ours) / 10)


def test_ratio_is_of_medians_so_an_outlier_decides_nothing():
    timed = TimedCall("A", lambda: None, rounds=[[1.0, 1.0, 90.0]] * 3)
    assert ratio(timed, TimedCall("B", lambda: None, rounds=[[2.0, 2.0, 2.0]] * 3)) == Ratio(0.5, 0.5, 0.5)


def test_an_arm_can_measure_by_itself_and_is_asked_after_the_clock_stopped():
    time = FakeTime()
    timed = time.timed("A", 1.0)

    def read() -> dict[str, list[float]]:
        time.now += 100.0  # no part of the call
        return {"inner": [0.25, 0.5]}

    timed.read, timed.watch = read, lambda: len(time.calls)
    measure([timed], Protocol(warm_up_s=0.0, duration_s=0.0, iterations=6, rounds=3), clock=time)
    assert timed.rounds == [[1.0, 1.0]] * 3
    assert timed.readings == {"inner": [[0.25, 0.5] * 2] * 3}
    assert [after - before for before, after in timed.watched] == [2, 2, 2]  # around the measured calls alone


def test_garbage_is_collected_between_not_during_measurements():
    seen: list[bool] = []
    timed = TimedCall("A", lambda: seen.append(gc.isenabled()))
    time = FakeTime()

    def clock() -> float:
        time.now += 0.01
        return time.now

    measure([timed], Protocol(warm_up_s=0.0, duration_s=0.0, iterations=3, rounds=3), clock=clock)
    assert not any(seen[-6:])
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 2}, "show no spread"),
        ({"iterations": 0}, "at least once"),
        ({"percentiles": (50.0, 101.0)}, "at most 100, not 101"),
        ({"percentiles": (0.0,)}, "above 0"),
    ],
)
def test_protocols_that_cannot_be_meant(changes: dict, message: str):
    with pytest.raises(UsageError, match=message):
        Protocol(**changes)
