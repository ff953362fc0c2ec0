import pytest

from tmdeploy.bench.pace import Pace
from tmdeploy.bench.timing import Protocol, TimedCall, measure


def _pace(planned: float, done: float, seconds: float) -> str:
    times = iter((100.0, 100.0 + seconds))
    pace = Pace(planned, clock=lambda: next(times))
    pace.did(done)
    return pace.left()


@pytest.mark.parametrize(
    ("planned", "done", "seconds", "said"),
    [
        (100.0, 10.0, 10.0, ", about 2 min left"),
        (100.0, 50.0, 30.0, ", about 30 s left"),
        (100.0, 10.0, 1000.0, ", about 2 h 30 min left"),
        (100.0, 99.0, 10.0, ""),
        (100.0, 120.0, 10.0, ""),
    ],
)
def test_time_left_follows_from_what_is_done(planned: float, done: float, seconds: float, said: str):
    assert _pace(planned, done, seconds) == said


def test_nothing_is_said_before_anything_is_known():
    assert Pace(10.0).left() == ""


def test_measuring_says_how_long_it_still_takes():
    clock = iter(float(tick) for tick in range(10_000))
    now = lambda: next(clock)  # noqa: E731 - a second a look at the clock
    protocol = Protocol(warm_up_s=1.0, duration_s=30.0, iterations=3, rounds=3)
    said: list[str] = []
    pace = Pace(protocol.work_of_a_call * 2, clock=now)
    measure(
        [TimedCall("a", lambda: None), TimedCall("b", lambda: None)],
        protocol,
        clock=now,
        pace=pace,
        progress=said.append,
    )
    assert said[0] == "warming up a"
    assert any(text.startswith("round 2 of 3: ") and text.endswith(" left") for text in said)
    assert pace.left() == ""
