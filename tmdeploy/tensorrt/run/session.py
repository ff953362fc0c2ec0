"""Running an engine: preallocated buffers, one stream, one CUDA graph per shape. Numpy or device arrays, no torch.

Written against the signatures of TensorRT's and CUDA's Python bindings, which tests check (docs/status.md says
what has been run).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.tensorrt.cuda.device import Buffer, Capture, Device
from tmdeploy.tensorrt.cuda.device_array import LEGACY_STREAM, DeviceArray
from tmdeploy.tensorrt.run.compatibility import Fit
from tmdeploy.tensorrt.run.memory import EngineMemory, engine_memory
from tmdeploy.tensorrt.run.opening import open_engine
from tmdeploy.tensorrt.sdk.flavor import Log

_TYPES = {
    "float": np.float32,
    "half": np.float16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "bool": np.bool_,
}


@dataclass(frozen=True)
class Staged:
    """A batch in the session's buffers.

    Attributes:
        name: Name of the image input.
        shape: Shape after padding to the profile.
        elements: Number of elements of the padded batch.
        batch: Number of images without padding.
        amounts: Values of the shape input; empty if there is none.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    batch: int
    amounts: tuple[int, ...]


class Session:
    """A loaded engine with memory for its largest profile.

    Args:
        path: The engine.
        fit: The result of `check_fit`.
        graphs: Capture a CUDA graph for every shape and launch it from the second call on.
        weight_budget: See `open_engine`.

    Attributes:
        device: The CUDA runtime on the engine's GPU.
        stream: The stream on which everything runs in order.
        staged: The batch that the buffers hold.

    Raises:
        ArtifactError: TensorRT does not load it after all.
        EnvironmentMissing: CUDA failed, for example out of memory.
    """

    def __init__(self, path: Path, fit: Fit, *, graphs: bool = True, weight_budget: int | None = None) -> None:
        self._path, self._record, self._log = path, fit.record, Log(fit.toolkit.module)
        self._module = fit.toolkit.module
        self.device = Device(fit.gpu.index)
        self._runtime, self._engine = open_engine(path, fit, self._log, weight_budget=weight_budget)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ArtifactError(f"{fit.toolkit.title} cannot prepare it ({self._log.reason()})", path=path)
        self.stream = self.device.stream()
        self._graphs_wanted = graphs
        self._graphs: dict[tuple[int, tuple[int, ...]], Any] = {}
        self._warm: set[tuple[int, tuple[int, ...]]] = set()
        self._profile = 0
        self._turn: Any = None  # event for synchronising streams
        self.staged: Staged | None = None
        most = max(profile.max for profile in fit.record.profiles)
        self._buffers = {
            tensor.name: Buffer(self.device, _elements(tensor.shape, most), np.dtype(_TYPES[tensor.type]))
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

    def run(self, images: NDArray[np.generic], schedule: Sequence[int] | None) -> dict[str, NDArray[Any]]:
        """Run one batch; fewer images than the smallest profile takes are padded with zeros.

        Args:
            images: Of the shape and type of the engine's image input.
            schedule: Values of the shape input; None if there is none.

        Returns:
            Outputs by name, in new arrays.
        """
        staged = self.stage(images, schedule)
        self.upload(staged)
        self.set_shapes(staged)
        self.launch(staged)
        self.download()
        self.synchronize()
        return self.results(staged)

    def run_on_device(
        self, images: DeviceArray, schedule: Sequence[int] | None, *, stream: int = LEGACY_STREAM
    ) -> dict[str, DeviceArray]:
        """Run one batch that is on the device, without waiting for it.

        The images are copied to the engine's buffer on the device, since CUDA graphs have fixed addresses.

        Args:
            images: Of the shape and type of the engine's image input.
            schedule: Values of the shape input; None if there is none.
            stream: CUDA handle of the stream that produces the images and will use the outputs. The engine waits for
                its earlier work, and its later work waits for the outputs.

        Returns:
            Outputs by name, in the session's memory; the next run overwrites them.

        Raises:
            DataError: The images have another type; nothing is converted on the device.
        """
        staged = self._choose(images.shape[0], schedule)
        buffer = self._buffers[staged.name]
        if images.dtype != buffer.host.dtype:
            raise DataError(f"takes {buffer.host.dtype} images on the GPU, not {images.dtype}", path=self._path)
        self._let_wait(self.stream, stream)
        buffer.copy_on_device(self.stream, images.address, images.elements)
        buffer.clear(self.stream, images.elements, staged.elements)
        self.set_shapes(staged)
        self.launch(staged)
        self._let_wait(stream, self.stream)
        return {
            tensor.name: DeviceArray(
                self._buffers[tensor.name].device,
                (staged.batch, *self._output_shape(tensor.name)[1:]),
                np.dtype(_TYPES[tensor.type]),
                stream,
                self,
            )
            for tensor in self._record.outputs
        }

    def stage(self, images: NDArray[np.generic], schedule: Sequence[int] | None) -> Staged:
        """First step of `run`: choose the profile and copy the images to pinned memory."""
        staged = self._choose(len(images), schedule)
        buffer = self._buffers[staged.name]
        flat = images.reshape(-1)
        buffer.host[: flat.size] = flat
        buffer.host[flat.size : staged.elements] = 0
        return staged

    def upload(self, staged: Staged) -> None:
        """Enqueue the copy to the device."""
        self._buffers[staged.name].upload(self.stream, staged.elements)

    def set_shapes(self, staged: Staged) -> None:
        """Set the input shapes, on the host. Raises DataError if the engine refuses them."""
        for values in self._shape_values.values():
            values[:] = staged.amounts
        if not self._context.set_input_shape(staged.name, staged.shape):
            raise DataError(f"refuses images of shape {list(staged.shape)} ({self._log.reason()})", path=self._path)
        missing = self._context.infer_shapes()
        if missing:
            raise DataError(f"cannot infer its shapes: {', '.join(missing)} lack values", path=self._path)

    def launch(self, staged: Staged, *, graph: bool | None = None) -> None:
        """Enqueue the engine: its CUDA graph, captured at the second call of a shape, or its kernels.

        Args:
            staged: The batch whose shapes are set.
            graph: Whether to use a graph; None takes the session's setting.
        """
        key = (staged.shape[0], staged.amounts)
        wanted = self._graphs_wanted if graph is None else graph
        if wanted and key in self._graphs:
            self.device.call("cudaGraphLaunch", self._graphs[key], self.stream)
            return
        if wanted and key in self._warm:  # TensorRT allocates during the first call after a new shape
            with Capture(self.device, self.stream) as capture:
                self._enqueue()
            self._graphs[key] = capture.executable
            self.device.call("cudaGraphLaunch", capture.executable, self.stream)
            return
        self._enqueue()
        self._warm.add(key)

    def download(self) -> None:
        """Enqueue the copies of the outputs to the host."""
        for tensor in self._record.outputs:
            self._buffers[tensor.name].download(self.stream, int(np.prod(self._output_shape(tensor.name))))

    def synchronize(self) -> None:
        """Wait for all work on the stream."""
        self.device.synchronize(self.stream)

    def results(self, staged: Staged) -> dict[str, NDArray[Any]]:
        """Outputs by name, without padding, in new arrays."""
        found = {}
        for tensor in self._record.outputs:
            shape = self._output_shape(tensor.name)
            flat = self._buffers[tensor.name].host[: int(np.prod(shape))]
            found[tensor.name] = flat.reshape(shape)[: staged.batch].copy()
        return found

    def memory(self) -> EngineMemory:
        """The memory that the engine states it needs."""
        buffers = sum(buffer.bytes for buffer in self._buffers.values())
        return engine_memory(self._module, self._engine, len(self._record.profiles), buffers=buffers)

    def profile_for(self, batch: int) -> int:
        """Of the profiles that hold this size, the one tuned for the nearest size.

        Raises:
            DataError: None holds it.
        """
        profiles = self._record.profiles
        fitting = [number for number, profile in enumerate(profiles) if batch <= profile.max]
        if not fitting:
            raise DataError(f"takes at most {max(profile.max for profile in profiles)} images", path=self._path)
        return min(fitting, key=lambda number: (batch < profiles[number].min, abs(profiles[number].opt - batch)))

    def close(self) -> None:
        """Free everything; the session cannot be used afterwards. Closing twice does no harm."""
        if self._runtime is None:
            return
        for graph in self._graphs.values():
            self.device.call("cudaGraphExecDestroy", graph)
        self._graphs.clear()
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        if self._turn is not None:
            self.device.call("cudaEventDestroy", self._turn)
        self.device.call("cudaStreamDestroy", self.stream)
        self._context = self._engine = self._runtime = None

    def _choose(self, batch: int, schedule: Sequence[int] | None) -> Staged:
        number = self.profile_for(batch)
        padded = max(batch, self._record.profiles[number].min)
        self._select(number)
        image = next(tensor for tensor in self._record.inputs if not tensor.shape_input)
        amounts = tuple(schedule) if schedule is not None else ()
        elements = _elements(image.shape, padded)
        self.staged = Staged(image.name, (padded, *image.shape[1:]), elements, batch, amounts)
        return self.staged

    def _let_wait(self, stream: Any, other: Any) -> None:
        """Make later work on `stream` wait for the present work on `other`."""
        if self._turn is None:
            self._turn = self.device.event()
        self.device.call("cudaEventRecord", self._turn, other)
        self.device.call("cudaStreamWaitEvent", stream, self._turn, 0)

    def _select(self, number: int) -> None:
        if number == self._profile:
            return
        if not self._context.set_optimization_profile_async(number, self.stream):
            raise ArtifactError(f"refuses profile {number} ({self._log.reason()})", path=self._path)
        self.device.synchronize(self.stream)
        self._profile = number
        for graph in self._graphs.values():  # graphs hold the other profile's kernels
            self.device.call("cudaGraphExecDestroy", graph)
        self._graphs.clear()
        self._warm.clear()

    def _output_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(name))

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self.stream)):
            raise ArtifactError(f"failed while running ({self._log.reason()})", path=self._path)


def _elements(shape: Sequence[int], batch: int) -> int:
    """Number of elements, with open dimensions set to the batch."""
    return int(np.prod([batch if side < 0 else side for side in shape], dtype=np.int64))
