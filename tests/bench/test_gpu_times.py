"""trtexec's statistics and rules."""

from __future__ import annotations

import numpy as np
import pytest

from tmdeploy.bench.arm import EngineMode, engine_modes
from tmdeploy.bench.gpu_doubts import gpu_doubts
from tmdeploy.bench.gpu_times import spread
from tmdeploy.report.schemas.bench import ArmRow, Clocks, GpuTimes


def test_statistics_are_those_of_trtexec():
    found = spread([0.004, 0.001, 0.003, 0.002], (25, 50, 90, 99, 100))
    assert found.percentiles_ms == pytest.approx({"25": 1.0, "50": 2.0, "90": 4.0, "99": 4.0, "100": 4.0})
    assert (found.median_ms, found.mean_ms, found.min_ms, found.max_ms) == pytest.approx((2.5, 2.5, 1.0, 4.0))
    assert found.cv == pytest.approx(1.25**0.5 / 2.5)  # divided by n
    assert found.calls == 4
    assert spread([0.005], (99,)).percentiles_ms == {"99": 5.0}


def test_a_percentile_is_exact_where_its_share_is_whole():
    """(100 - 99.9) * 1000 / 100 is a little less than 1 in binary, which would exclude nothing."""
    assert spread(np.arange(1, 11) / 1e3, (90,)).percentiles_ms["90"] == pytest.approx(9.0)
    assert spread(np.arange(1, 1001) / 1e3, (99.9,)).percentiles_ms["99.9"] == pytest.approx(999.0)


def test_modes():
    assert [str(mode) for mode in engine_modes()] == [
        "graph",
        "no graph",
        "graph, no transfers",
        "no graph, no transfers",
    ]
    assert engine_modes(cuda_graph=False, transfers=True) == (EngineMode(cuda_graph=False, transfers=True),)


def _row(*, graph: bool = False, clocks: Clocks | None = None, **medians: float) -> ArmRow:
    queued = {name: spread([value / 1e3] * 3, (50,)) for name, value in medians.items()}
    gpu = GpuTimes(
        cuda_graph=graph,
        transfers="h2d" in medians,
        single=queued,
        queued=queued,
        single_images_per_s=1.0,
        queued_images_per_s=1.0,
        clocks=clocks,
    )
    return ArmRow(
        name="m.plan", kind="model", path="m.plan", batch=1, schedule=None, backend={}, precision="fp16",
        median_ms=1.0, mean_ms=1.0, min_ms=1.0, percentiles_ms={}, cv=0.0, calls=3, stable_warm_up=True,
        images_per_s=1.0, gmacs=None, rounds_ms=(), gpu=gpu,
    )  # fmt: skip


def _clocks(low: int, high: int, *throttled: str) -> Clocks:
    return Clocks(sm_mhz_low=low, sm_mhz_high=high, readings=4, throttled=throttled)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (_row(compute=1.0, enqueue=0.79), None),
        (_row(compute=1.0, enqueue=0.81), "enqueueing takes 0.81 ms, 81% of the compute time 1 ms"),
        (_row(compute=1.0, enqueue=0.81, graph=True), "a larger batch would fill the GPU"),
        (_row(compute=1.0, enqueue=0.1, h2d=0.99, d2h=0.1), None),
        (_row(compute=1.0, enqueue=0.1, h2d=1.0, d2h=0.1), "copying the images takes 1 ms"),
        (_row(compute=1.0, enqueue=0.1, h2d=0.1, d2h=1.5), "copying the outputs back takes 1.5 ms, compute 1 ms"),
    ],
)
def test_what_is_doubted(row: ArmRow, said: str | None):
    doubts = gpu_doubts([row])
    if said is None:
        assert doubts == []
    else:
        assert len(doubts) == 1
        assert doubts[0].startswith("m.plan at batch 1: ")
        assert said in doubts[0]


def test_clocks_are_judged_over_all_arms_because_those_are_compared():
    def said(*clocks: Clocks) -> list[str]:
        return gpu_doubts([_row(compute=1.0, enqueue=0.1, clocks=one) for one in clocks])

    assert said(_clocks(1965, 1980), _clocks(1980, 1980)) == []  # a step of the clock
    (text,) = said(_clocks(1980, 1980), _clocks(1500, 1500))
    assert text.startswith("the GPU's clock moved between 1500 and 1980 MHz; lock the clocks")
    assert said(_clocks(1980, 1980, "power cap"), _clocks(1980, 1980, "power brake", "power cap")) == [
        "the GPU was throttled (power brake, power cap)"
    ]


@pytest.mark.parametrize(("jitter", "unstable"), [(0.02, False), (0.03, True)])
def test_unstable_compute(jitter: float, unstable: bool):
    row = _row(compute=1.0, enqueue=0.1)
    assert row.gpu is not None
    compute = spread([(1 - jitter) / 1e3, (1 + jitter) / 1e3], (50,))
    gpu = row.gpu.model_copy(update={"queued": {**row.gpu.queued, "compute": compute}})
    doubts = gpu_doubts([row.model_copy(update={"gpu": gpu}), row.model_copy(update={"gpu": None})])
    text = "m.plan at batch 1: compute times vary by 3.0% (limit 2.5%); lock the clocks (nvidia-smi --lock-gpu-clocks)"
    assert doubts == ([f"{text}, and keep other work off the GPU"] if unstable else [])
