"""The GPU's clock, and what throttles it, read through NVML (part of cuda-bindings and of the driver)."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.tensorrt.cuda.device import Device

_BUS_ID_LENGTH = 32  # CUDA wants 13 at least

# Bits of nvmlClocksEventReasons that mean throttling. Idle, locked clocks and sync boost do not.
_THROTTLING = {
    "SW_POWER_CAP": "power cap",
    "HW_SLOWDOWN": "hardware slowdown",
    "SW_THERMAL_SLOWDOWN": "temperature (driver)",
    "HW_THERMAL_SLOWDOWN": "temperature (hardware)",
    "HW_POWER_BRAKE_SLOWDOWN": "power brake",
}


@dataclass(frozen=True)
class ClockReading:
    """One reading of the GPU's state.

    Attributes:
        sm_mhz: Clock of the multiprocessors.
        throttled: Why it is throttled, in words; empty if it is not.
    """

    sm_mhz: int
    throttled: tuple[str, ...]


class Clocks:
    """NVML's view of one GPU.

    Args:
        index: CUDA's device number. NVML counts differently, so devices are matched by PCI bus id.

    Raises:
        EnvironmentMissing: cuda-bindings without NVML, no driver library, or a GPU that does not answer.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._nvml: Any = importlib.import_module("cuda.bindings.nvml")
        except ImportError:
            raise EnvironmentMissing("this cuda-bindings has no NVML", remedy="pip install -U cuda-bindings") from None
        bus_id = Device(index).call("cudaDeviceGetPCIBusId", _BUS_ID_LENGTH, index)
        text = bus_id.decode() if isinstance(bus_id, bytes) else str(bus_id)
        try:
            self._nvml.init_v2()
            self._handle = self._nvml.device_get_handle_by_pci_bus_id_v2(text.partition("\0")[0])
            self.read()
        except Exception as error:  # the bindings' own errors and that of a missing library have no common base
            self._failed(error)

    def read(self) -> ClockReading:
        """Clock and throttling now.

        Raises:
            EnvironmentMissing: The driver does not say.
        """
        nvml = self._nvml
        try:
            clock = int(nvml.device_get_clock_info(self._handle, nvml.ClockType.SM))
            reasons = int(nvml.device_get_current_clocks_event_reasons(self._handle))
        except Exception as error:
            self._failed(error)
        words = {_throttling(reason.name) for reason in nvml.ClocksEventReasons if reasons & int(reason)}
        return ClockReading(clock, tuple(sorted(word for word in words if word)))

    def _failed(self, error: Exception) -> NoReturn:
        raise EnvironmentMissing(f"NVML does not tell the clocks ({' '.join(str(error).split())})") from None


def clock_reader(index: int = 0) -> tuple[Callable[[], ClockReading | None] | None, str]:
    """A function that reads the clocks, or None and the reason. It returns None if a later reading fails."""
    try:
        clocks = Clocks(index)
    except EnvironmentMissing as error:
        return None, error.message

    def read() -> ClockReading | None:
        with contextlib.suppress(EnvironmentMissing):
            return clocks.read()
        return None

    return read, ""


def _throttling(reason: str) -> str | None:
    """The throttling flags, called EVENT_REASON_... or, by older versions, THROTTLE_REASON_...."""
    return _THROTTLING.get(reason.partition("_REASON_")[2])
