"""Clocks and throttling through NVML, on a stand-in and against the names of the real bindings."""

from __future__ import annotations

import sys

import pytest

from tests.tensorrt.fakes import FakeCuda, FakeNvml
from tmdeploy.tensorrt.cuda import clocks, device
from tmdeploy.tensorrt.cuda.clocks import ClockReading, clock_reader


@pytest.fixture(autouse=True)
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_runtime", lambda _: FakeCuda())


def test_clock_and_what_holds_it_down(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", FakeNvml((1980, 1980, 1500), reasons=1 | 4 | 64))
    read, problem = clock_reader()
    assert read is not None
    assert problem == ""
    throttled = ("power cap", "temperature (hardware)")  # idle is no throttling
    assert [read(), read()] == [ClockReading(1980, throttled), ClockReading(1500, throttled)]


def test_why_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    assert clock_reader() == (None, "this cuda-bindings has no NVML")
    broken = FakeNvml()
    monkeypatch.setattr(broken, "init_v2", _raise)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", broken)
    assert clock_reader() == (None, "NVML does not tell the clocks (no driver)")


def test_a_gpu_that_stops_answering_does_not_end_a_benchmark(monkeypatch: pytest.MonkeyPatch):
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", nvml)
    read, _ = clock_reader()
    assert read is not None
    monkeypatch.setattr(nvml, "device_get_clock_info", _raise)
    assert read() is None


def _raise(*_: object) -> None:
    raise RuntimeError("no\n driver")


def test_the_names_are_those_of_the_real_bindings():
    nvml = pytest.importorskip("cuda.bindings.nvml", reason="NVML'S NAMES ARE NOT CHECKED: no cuda.bindings.nvml")
    for name in (
        *("init_v2", "device_get_handle_by_pci_bus_id_v2", "device_get_clock_info"),
        "device_get_current_clocks_event_reasons",
    ):
        assert callable(getattr(nvml, name))
    assert nvml.ClockType.SM == 1
    words = {clocks._throttling(reason.name) for reason in nvml.ClocksEventReasons}
    assert words - {None} == set(clocks._THROTTLING.values())
