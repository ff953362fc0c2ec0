"""Stand-ins for TensorRT's runtime, the CUDA runtime and NVML: "device" memory is memory, streams run at once.

They check how they are called (sizes, order, what a capture may contain), and compute something that tells the images
of a batch apart. Results are there at once, but on a simulated clock everything takes the time that a test gives it:
the host goes on while the stream works, and the stream begins nothing before the host has given it. What they cannot
show is whether NVIDIA's libraries agree; docs/status.md says so.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np


class _Status(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class _Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


@dataclass
class Costs:
    """Seconds on the simulated clock; `compute` repeats."""

    h2d: float = 0.0
    compute: tuple[float, ...] = (0.0,)
    d2h: float = 0.0
    enqueue: float = 0.0
    graph: float = 0.0  # enqueueing a graph


class FakeCuda:
    """The functions of `cuda.bindings.runtime` that are used.

    Attributes:
        now: The host's clock, seconds.
        stream: When the stream will have done what it was given.
    """

    cudaError_t = _Status
    cudaMemcpyKind = _Kind
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking = 1
    cudaEventDefault = 0
    reserved = 0  # bytes of the device that are not in `memory`: an engine's weights, say

    def __init__(self, limit: int = 1 << 30, costs: Costs | None = None) -> None:
        self.costs = costs or Costs()
        self._compute = cycle(self.costs.compute)
        self.now = self.stream = 0.0
        self.events: dict[int, float | None] = {}
        self.recorded_on: dict[int, int] = {}
        self.copies: list[_Kind] = []
        self.made = 0
        self.memory: dict[int, Any] = {}
        self.limit = limit
        self.log: list[str] = []
        self.capturing: list[Any] | None = None
        self.graphs: dict[int, list[Any]] = {}

    def cudaSetDevice(self, index: int) -> tuple[_Status]:
        return (_Status.cudaSuccess,)

    def cudaGetErrorString(self, status: int) -> tuple[_Status, bytes]:
        return _Status.cudaSuccess, b"out of memory"

    def cudaMalloc(self, size: int) -> tuple[_Status, int]:
        if size > self.limit:
            return _Status.cudaErrorMemoryAllocation, 0
        raw = (ctypes.c_uint8 * size)(*([0xEE] * size))
        self.memory[ctypes.addressof(raw)] = raw
        return _Status.cudaSuccess, ctypes.addressof(raw)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[_Status]:
        del self.memory[address]
        return (_Status.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[_Status]:
        assert self.capturing is None, "copies stay outside the graph"
        for address in (to, source):
            assert size <= len(self.memory[address]), "copies beyond a buffer"
        ctypes.memmove(to, source, size)
        cost = {_Kind.cudaMemcpyHostToDevice: self.costs.h2d, _Kind.cudaMemcpyDeviceToHost: self.costs.d2h}
        self.stream = max(self.stream, self.now) + cost.get(_Kind(kind), 0.0)
        self.copies.append(_Kind(kind))
        if kind == _Kind.cudaMemcpyDeviceToDevice:
            self.log.append("copy on the device")
        return (_Status.cudaSuccess,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[_Status]:
        base = max(start for start in self.memory if start <= address)
        assert address + size <= base + len(self.memory[base]), "a set beyond a buffer"
        ctypes.memset(address, value, size)
        return (_Status.cudaSuccess,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[_Status]:
        assert self.events[event] is not None, "waits for an event that was never recorded"
        self.log.append(f"{stream} waits for {self.recorded_on[event]}")
        return (_Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[_Status, int]:
        return _Status.cudaSuccess, 77

    def cudaStreamSynchronize(self, stream: int) -> tuple[_Status]:
        assert self.capturing is None, "no synchronisation while capturing"
        self.log.append("sync")
        self.now = max(self.now, self.stream)
        return (_Status.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[_Status, int]:
        self.made += 1
        self.events[self.made] = None
        return _Status.cudaSuccess, self.made

    def cudaEventRecord(self, event: int, stream: int) -> tuple[_Status]:
        assert self.capturing is None, "events stay outside the graph"
        self.events[event] = max(self.stream, self.now)
        self.recorded_on[event] = stream
        return (_Status.cudaSuccess,)

    def cudaEventSynchronize(self, event: int) -> tuple[_Status]:
        self.now = max(self.now, self._passed(event))
        return (_Status.cudaSuccess,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[_Status, float]:
        assert max(self._passed(start), self._passed(end)) <= self.now, "asked before the events have passed"
        return _Status.cudaSuccess, (self._passed(end) - self._passed(start)) * 1e3

    def cudaEventDestroy(self, event: int) -> tuple[_Status]:
        del self.events[event]
        return (_Status.cudaSuccess,)

    def _passed(self, event: int) -> float:
        when = self.events[event]
        assert when is not None, "an event that was never recorded"
        return when

    def cudaMemGetInfo(self) -> tuple[_Status, int, int]:
        device_side = sum(len(raw) for raw in self.memory.values()) // 2  # every buffer has a pinned twin
        return _Status.cudaSuccess, self.limit - self.reserved - device_side, self.limit

    def cudaDeviceGetPCIBusId(self, length: int, index: int) -> tuple[_Status, bytes]:
        assert length >= 13
        return _Status.cudaSuccess, b"0000:65:00.0".ljust(length, b"\0")

    def enqueued(self, *, graph: bool) -> None:
        """The engine's work was put on the stream."""
        began, compute = self.now, next(self._compute)
        self.now += self.costs.graph if graph else self.costs.enqueue
        if graph:
            self.stream = max(self.stream, self.now) + compute
        else:  # the first kernel may begin while the others are given
            self.stream = max(max(self.stream, began) + compute, self.now)

    def cudaStreamDestroy(self, stream: int) -> tuple[_Status]:
        self.log.append("destroy stream")
        return (_Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[_Status]:
        self.capturing = []
        return (_Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[_Status, int]:
        assert self.capturing is not None
        handle = len(self.graphs) + 1
        self.graphs[handle], self.capturing = self.capturing, None
        return _Status.cudaSuccess, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[_Status, int]:
        self.log.append("instantiate")
        return _Status.cudaSuccess, graph

    def cudaGraphDestroy(self, graph: int) -> tuple[_Status]:
        return (_Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[_Status]:
        self.log.append("destroy graph")
        del self.graphs[graph]
        return (_Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[_Status]:
        self.log.append("graph")
        for work in self.graphs[graph]:
            work()
        self.enqueued(graph=True)
        return (_Status.cudaSuccess,)


WEIGHTS = 1 << 20


class FakeNvml:
    """The functions of `cuda.bindings.nvml` that are used; the clocks repeat."""

    ClockType = SimpleNamespace(SM=1)

    class ClocksEventReasons(IntEnum):
        EVENT_REASON_GPU_IDLE = 1
        EVENT_REASON_SW_POWER_CAP = 4
        THROTTLE_REASON_HW_THERMAL_SLOWDOWN = 64
        EVENT_REASON_NONE = 0

    def __init__(self, clocks: tuple[int, ...] = (1980,), reasons: int = 0) -> None:
        self._clocks, self._reasons = cycle(clocks), reasons

    def init_v2(self) -> None:
        pass

    def device_get_handle_by_pci_bus_id_v2(self, bus_id: str) -> int:
        assert bus_id == "0000:65:00.0"
        return 5

    def device_get_clock_info(self, device: int, kind: int) -> int:
        assert (device, kind) == (5, 1)
        return next(self._clocks)

    def device_get_current_clocks_event_reasons(self, device: int) -> int:
        return self._reasons


class FakeTensorrt:
    """The module: its runtime loads any bytes as an engine that puts out the mean of each image, plus the amounts.

    Args:
        cuda: Whose memory it works in.
        steps: Length of the shape input; 0 for none.
        loads: Whether it takes engines at all.
        streamable: Bytes of weights that its engines can stream.
    """

    def __init__(self, cuda: FakeCuda, *, steps: int = 0, loads: bool = True, streamable: int = 0) -> None:
        self.cuda, self.steps, self.loads = cuda, steps, loads
        self.streamable = streamable
        self.weight_budget: int | None = None
        self.diagnostics: int | None = None  # why it will not run an engine; None: it will
        module = self

        class ILogger:
            class Severity(IntEnum):
                INTERNAL_ERROR = 0
                ERROR = 1
                WARNING = 2
                INFO = 3
                VERBOSE = 4

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            engine_header_size = 64

            def get_engine_validity(self, header: bytes) -> tuple[int, int]:
                assert len(header) <= 64
                return (2 if module.diagnostics is not None else 0, module.diagnostics or 0)

            def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
                if not module.loads:
                    self.logger.log(ILogger.Severity.ERROR, "IRuntime::deserialize: Error Code 1: Serialization failed")
                    return None
                return _Engine(module)

        self.ILogger, self.Runtime = ILogger, Runtime
        self.EngineValidity = SimpleNamespace(VALID=0, SUBOPTIMAL=1, INVALID=2)
        names = "VERSION_MISMATCH UNSUPPORTED_CC OLD_CUDA_DRIVER OLD_CUDA_RUNTIME INSUFFICIENT_GPU_MEMORY"
        flags = [*names.split(), "MALFORMED_ENGINE", "CUDA_ERROR"]
        self.EngineInvalidityDiagnostics = SimpleNamespace(**{name: 1 << at for at, name in enumerate(flags)})
        self.EngineStat = SimpleNamespace(TOTAL_WEIGHTS_SIZE=0)


class _Engine:
    device_memory_size_v2, streamable_weights_size, weight_streaming_scratch_memory_size = 4096, 0, 0
    weight_streaming_budget_v2: int | None = None

    def __init__(self, module: FakeTensorrt) -> None:
        self.module = module
        self.streamable_weights_size = self.streamable_weights_size or module.streamable
        module.cuda.reserved += WEIGHTS

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 2

    def get_engine_stat(self, stat: int) -> int:
        return WEIGHTS

    def get_device_memory_size_for_profile_v2(self, number: int) -> int:
        return 4096 >> number

    def create_execution_context(self) -> _Context:
        assert (self.weight_streaming_budget_v2 is not None) == (self.streamable_weights_size > 0)
        self.module.weight_budget = self.weight_streaming_budget_v2
        return _Context(self.module)


class _Context:
    def __init__(self, module: FakeTensorrt) -> None:
        self.module, self.addresses, self.profile = module, {}, 0
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.module.cuda.log.append(f"profile {number}")
        self.profile = number
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape[0], 2)

    def execute_async_v3(self, stream: int) -> bool:
        cuda, shape = self.module.cuda, self.shape
        amounts = 0
        if "r" in self.addresses:
            raw = (ctypes.c_int64 * self.module.steps).from_address(self.addresses["r"])
            amounts = sum(raw)

        def work() -> None:
            count = int(np.prod(shape))
            images = np.frombuffer(cuda.memory[self.addresses["images"]], np.float32)[:count].reshape(shape)
            logits = np.frombuffer(cuda.memory[self.addresses["logits"]], np.float32)[: shape[0] * 2]
            logits.reshape(shape[0], 2)[:] = np.stack([images.mean(axis=(1, 2, 3)), np.full(shape[0], amounts)], axis=1)

        cuda.log.append("enqueue" if cuda.capturing is None else "captured")
        if cuda.capturing is None:
            work()
            cuda.enqueued(graph=False)
        else:
            cuda.capturing.append(work)
        return True
