"""Stand-ins for TensorRT's runtime and the CUDA runtime: "device" memory is memory, streams run at once.

They check how they are called (sizes, order, what a capture may contain), and compute something that tells the images
of a batch apart. What they cannot show is whether NVIDIA's libraries agree; docs/backends.md says so.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np


class _Status(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class _Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class FakeCuda:
    """The functions of `cuda.bindings.runtime` that are used."""

    cudaError_t = _Status
    cudaMemcpyKind = _Kind
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking = 1

    def __init__(self, limit: int = 1 << 30) -> None:
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
        return (_Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[_Status, int]:
        return _Status.cudaSuccess, 77

    def cudaStreamSynchronize(self, stream: int) -> tuple[_Status]:
        assert self.capturing is None, "no synchronisation while capturing"
        self.log.append("sync")
        return (_Status.cudaSuccess,)

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
        return (_Status.cudaSuccess,)


class FakeTensorrt:
    """The module: its runtime loads any bytes as an engine that puts out the mean of each image, plus the amounts.

    Args:
        cuda: Whose memory it works in.
        inputs: Shape of the image input, -1 for the batch, and whether there is a shape input.
    """

    def __init__(self, cuda: FakeCuda, *, pixels: tuple[int, ...], steps: int = 0, loads: bool = True) -> None:
        self.cuda, self.pixels, self.steps, self.loads = cuda, pixels, steps, loads
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

            def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
                if not module.loads:
                    self.logger.log(ILogger.Severity.ERROR, "IRuntime::deserialize: Error Code 1: Serialization failed")
                    return None
                return _Engine(module)

        self.ILogger, self.Runtime = ILogger, Runtime


class _Engine:
    def __init__(self, module: FakeTensorrt) -> None:
        self.module, self.device_memory_size_v2 = module, 4096

    def create_execution_context(self) -> _Context:
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
        if self.module.steps:
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
        else:
            cuda.capturing.append(work)
        return True
