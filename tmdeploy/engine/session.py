"""Running an engine: preallocated buffers, one stream, one CUDA graph a shape. Numpy in and out, no torch.

Written against the signatures of TensorRT's and CUDA's Python bindings, which tests check; not run yet, for want of a
GPU (docs/backends.md says what was).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.engine.compatibility import Fit
from tmdeploy.engine.device import Buffer, Capture, Device
from tmdeploy.engine.flavour import Log
from tmdeploy.engine.opening import open_engine
from tmdeploy.errors import ArtifactError, DataError

_TYPES = {
    "float": np.float32,
    "half": np.float16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "bool": np.bool_,
}


class Session:
    """A loaded engine with memory for its largest profile.

    Args:
        path: The engine.
        fit: What `check_fit` found.
        graphs: Capture a CUDA graph for every shape, and launch that from the second call on.

    Raises:
        ArtifactError: TensorRT does not load it after all.
        EnvironmentMissing: CUDA failed, such as for want of memory.
    """

    def __init__(self, path: Path, fit: Fit, *, graphs: bool = True) -> None:
        self._path, self._record, self._log = path, fit.record, Log(fit.toolkit.module)
        self._device = Device(fit.gpu.index)
        self._runtime, self._engine = open_engine(path, fit, self._log)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ArtifactError(f"{fit.toolkit.title} cannot prepare it ({self._log.reason()})", path=path)
        self._stream = self._device.stream()
        self._graphs_wanted = graphs
        self._graphs: dict[tuple[int, tuple[int, ...]], Any] = {}
        self._warm: set[tuple[int, tuple[int, ...]]] = set()
        self._profile = 0
        most = max(profile.max for profile in fit.record.profiles)
        self._buffers = {
            tensor.name: Buffer(self._device, _elements(tensor.shape, most), np.dtype(_TYPES[tensor.type]))
            for tensor in (*fit.record.inputs, *fit.record.outputs)
            if not tensor.shape_input
        }
        self._shape_values = {
            tensor.name: np.zeros(_elements(tensor.shape, 1), np.dtype(_TYPES[tensor.type]))
            for tensor in fit.record.inputs
            if tensor.shape_input
        }
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, buffer.device)
        for name, values in self._shape_values.items():  # read on the host, while shapes are inferred
            self._context.set_tensor_address(name, values.ctypes.data)

    def profile_with(self, profiler: Any) -> None:
        """Have TensorRT time every layer of the coming calls of `run`; the times arrive with `report_profile`."""
        self._context.enqueue_emits_profile = False
        self._context.profiler = profiler

    def report_profile(self) -> bool:
        """Hand the layer times of the last `run` to the profiler; False if TensorRT has none."""
        return bool(self._context.report_to_profiler())

    @property
    def device_memory_bytes(self) -> int:
        """What the engine needs for activations, without weights, inputs and outputs."""
        return int(self._engine.device_memory_size_v2)

    def run(self, images: NDArray[np.generic], schedule: Sequence[int] | None) -> dict[str, NDArray[Any]]:
        """One batch that a profile holds; fewer images than its smallest batch are padded with zeros.

        Args:
            images: As the engine's image input.
            schedule: Values of the shape input; None if there is none.

        Returns:
            Outputs by name; the arrays are the caller's.
        """
        batch = len(images)
        number = self.profile_for(batch)
        padded = max(batch, self._record.profiles[number].min)
        self._select(number)
        image = next(tensor for tensor in self._record.inputs if not tensor.shape_input)
        buffer = self._buffers[image.name]
        flat = images.reshape(-1)
        buffer.host[: flat.size] = flat
        elements = _elements(image.shape, padded)
        buffer.host[flat.size : elements] = 0
        buffer.upload(self._stream, elements)
        amounts = tuple(schedule) if schedule is not None else ()
        self._set_shapes(image.name, (padded, *image.shape[1:]), amounts)
        self._launch((padded, amounts))
        results = {}
        for tensor in self._record.outputs:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            self._buffers[tensor.name].download(self._stream, int(np.prod(shape)))
            results[tensor.name] = (shape, self._buffers[tensor.name])
        self._device.synchronize(self._stream)
        return {
            name: buffer.host[: int(np.prod(shape))].reshape(shape)[:batch].copy()
            for name, (shape, buffer) in results.items()
        }

    def profile_for(self, batch: int) -> int:
        """The profile that is tuned for the size nearest to this one, among those that hold it.

        Raises:
            DataError: None holds it.
        """
        profiles = self._record.profiles
        fitting = [number for number, profile in enumerate(profiles) if batch <= profile.max]
        if not fitting:
            raise DataError(f"takes at most {max(profile.max for profile in profiles)} images", path=self._path)
        return min(fitting, key=lambda number: (batch < profiles[number].min, abs(profiles[number].opt - batch)))

    def close(self) -> None:
        """Free everything; the session cannot be used afterwards."""
        for graph in self._graphs.values():
            self._device.call("cudaGraphExecDestroy", graph)
        self._graphs.clear()
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        self._device.call("cudaStreamDestroy", self._stream)
        self._context = self._engine = self._runtime = None

    def _select(self, number: int) -> None:
        if number == self._profile:
            return
        if not self._context.set_optimization_profile_async(number, self._stream):
            raise ArtifactError(f"refuses profile {number} ({self._log.reason()})", path=self._path)
        self._device.synchronize(self._stream)
        self._profile = number
        for graph in self._graphs.values():  # they were captured with the other profile's kernels
            self._device.call("cudaGraphExecDestroy", graph)
        self._graphs.clear()
        self._warm.clear()

    def _set_shapes(self, name: str, shape: tuple[int, ...], amounts: tuple[int, ...]) -> None:
        for values in self._shape_values.values():
            values[:] = amounts
        if not self._context.set_input_shape(name, shape):
            raise DataError(f"refuses images of shape {list(shape)} ({self._log.reason()})", path=self._path)
        missing = self._context.infer_shapes()
        if missing:
            raise DataError(f"cannot infer its shapes: {', '.join(missing)} lack values", path=self._path)

    def _launch(self, key: tuple[int, tuple[int, ...]]) -> None:
        if key in self._graphs:
            self._device.call("cudaGraphLaunch", self._graphs[key], self._stream)
            return
        if self._graphs_wanted and key in self._warm:  # TensorRT allocates during the first call after a new shape
            with Capture(self._device, self._stream) as capture:
                self._enqueue()
            self._graphs[key] = capture.executable
            self._device.call("cudaGraphLaunch", capture.executable, self._stream)
            return
        self._enqueue()
        self._warm.add(key)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise ArtifactError(f"failed while running ({self._log.reason()})", path=self._path)


def _elements(shape: Sequence[int], batch: int) -> int:
    """Number of elements, with the batch where the shape is open."""
    return int(np.prod([batch if side < 0 else side for side in shape], dtype=np.int64))
