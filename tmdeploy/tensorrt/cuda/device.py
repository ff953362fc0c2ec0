"""Memory, streams, events and graphs of the CUDA runtime, through cuda-bindings. Every failure raises."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.tensorrt.cuda.gpu import cuda_runtime


class Buffer:
    """One tensor's memory: pinned on the host, and on the device.

    Attributes:
        host: The host side, flat.
        device: Address on the device.
    """

    def __init__(self, device: Device, elements: int, dtype: np.dtype[Any]) -> None:
        self._device = device
        self.bytes = max(1, elements * dtype.itemsize)
        self.device = int(device.call("cudaMalloc", self.bytes))
        self._address = int(device.call("cudaMallocHost", self.bytes))
        raw = (ctypes.c_uint8 * self.bytes).from_address(self._address)
        self.host: NDArray[Any] = np.ctypeslib.as_array(raw)[: elements * dtype.itemsize].view(dtype)

    def upload(self, stream: Any, elements: int) -> None:
        """Copy the first elements from host to device."""
        kind = self._device.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        size = elements * self.host.itemsize
        self._device.call("cudaMemcpyAsync", self.device, self.host.ctypes.data, size, kind, stream)

    def download(self, stream: Any, elements: int) -> None:
        """Copy the first elements from device to host."""
        kind = self._device.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        size = elements * self.host.itemsize
        self._device.call("cudaMemcpyAsync", self.host.ctypes.data, self.device, size, kind, stream)

    def copy_on_device(self, stream: Any, source: int, elements: int) -> None:
        """Copy the first elements of the device buffer from another device address."""
        kind = self._device.api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._device.call("cudaMemcpyAsync", self.device, source, elements * self.host.itemsize, kind, stream)

    def clear(self, stream: Any, start: int, end: int) -> None:
        """Set these elements of the device buffer to zero."""
        if end > start:
            size = self.host.itemsize
            self._device.call("cudaMemsetAsync", self.device + start * size, 0, (end - start) * size, stream)

    def free(self) -> None:
        """Free both buffers."""
        self._device.call("cudaFree", self.device)
        self._device.call("cudaFreeHost", self._address)


class Device:
    """The CUDA runtime on one device.

    Args:
        index: CUDA's device number.
    """

    def __init__(self, index: int = 0) -> None:
        self.api = cuda_runtime("running an engine")
        self.call("cudaSetDevice", index)

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return its result, without the status.

        Raises:
            EnvironmentMissing: It failed; CUDA's own words are in the message.
        """
        status, *results = getattr(self.api, function)(*arguments)
        if int(status) != 0:
            _, reason = self.api.cudaGetErrorString(status)
            text = reason.decode() if isinstance(reason, bytes) else str(reason)
            memory = int(status) == int(self.api.cudaError_t.cudaErrorMemoryAllocation)
            raise EnvironmentMissing(
                f"CUDA failed in {function} ({text})", remedy="Use a smaller batch" if memory else None
            )
        return results[0] if len(results) == 1 else results

    def stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self.call("cudaStreamCreateWithFlags", self.api.cudaStreamNonBlocking)

    def synchronize(self, stream: Any) -> None:
        """Wait until everything on the stream is done."""
        self.call("cudaStreamSynchronize", stream)

    def event(self) -> Any:
        """An event on a stream, for timing."""
        return self.call("cudaEventCreateWithFlags", self.api.cudaEventDefault)

    def seconds_between(self, start: Any, end: Any) -> float:
        """Time on the GPU between two events that have both passed; CUDA resolves about half a microsecond."""
        return float(self.call("cudaEventElapsedTime", start, end)) * 1e-3

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory, counting all processes."""
        free, total = self.call("cudaMemGetInfo")
        return int(free), int(total)


class Capture:
    """Record what is launched on a stream into a graph: `with Capture(...) as capture: ...; capture.executable`."""

    def __init__(self, device: Device, stream: Any) -> None:
        self._device, self._stream = device, stream
        self.executable: Any = None

    def __enter__(self) -> Capture:
        mode = self._device.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._device.call("cudaStreamBeginCapture", self._stream, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        graph = self._device.call("cudaStreamEndCapture", self._stream)
        if kind is None:
            self.executable = self._device.call("cudaGraphInstantiate", graph, 0)
        self._device.call("cudaGraphDestroy", graph)
