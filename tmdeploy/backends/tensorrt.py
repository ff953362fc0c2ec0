"""TensorRT and TensorRT-RTX engines. No torch, no onnxruntime in here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, Runner, Trace, check_not_empty
from tmdeploy.backends.engine import Engine
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.tensorrt.cuda.device import Device
from tmdeploy.tensorrt.cuda.device_array import LEGACY_STREAM, DeviceArray, device_array
from tmdeploy.tensorrt.record.sidecar import read_sidecar
from tmdeploy.tensorrt.run.amounts import amounts_for, check_batch
from tmdeploy.tensorrt.run.compatibility import check_fit
from tmdeploy.tensorrt.run.memory import EngineMemory
from tmdeploy.tensorrt.run.session import Session
from tmdeploy.tensorrt.run.timing import EngineTimer


class TensorrtRunner(Runner):
    """An engine on the GPU; see `backends.base.Runner`.

    Attributes:
        load_seconds: Time to check, deserialise and allocate, seconds.
        record: The sidecar.
        metadata: Metadata of the ONNX file; its schedule can be changed only if the engine has a range.
    """

    def __init__(self, path: Path, *, weight_budget: int | None = None) -> None:
        self.path, self.name = path, path.name
        self.plans_withheld = f"{path.name} is an engine, which keeps its plans to itself"
        start = perf_counter()
        self._fit = check_fit(path)
        self.record = record = self._fit.record
        self._session = Session(path, self._fit, weight_budget=weight_budget)
        self.load_seconds = perf_counter() - start
        self.metadata = record.metadata
        image = next(tensor for tensor in record.inputs if not tensor.shape_input)
        self._image = image
        self.pixels_in = image.type == "uint8"
        height, width = image.shape[1:3] if self.pixels_in else image.shape[2:]
        self.preprocessing = (
            self.card.preprocessing if self.card is not None else Preprocessing(image_size=(height, width))
        )
        self.class_names = self.card.class_names if self.card is not None else ()
        self.facts = RunnerFacts(
            backend="tensorrt",
            version=self._fit.toolkit.title,
            provider=f"{self._fit.gpu.name} ({self._fit.gpu.sm})",
            device=f"cuda:{self._fit.gpu.index}",
            precision=record.precision,
            native=record.lowering == "plugin",
            lowering=record.lowering,
            method=self.card.reduction.method if self.card is not None else "unknown",
            in_reports={"threads": "-", "cuda_graph": "from the third call of a shape on"},
        )

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes]; more images than the largest profile holds are run in portions.

        Raises:
            DataError: Images of another shape or type than the engine takes.
            UsageError: A schedule outside its range, or for an engine whose schedule is fixed.
        """
        self._check_images(images)
        amounts = self._amounts(schedule)
        most = max(profile.max for profile in self.record.profiles)
        name = self.record.outputs[0].name
        parts = [
            self._session.run(images[start : start + most], amounts)[name] for start in range(0, len(images), most)
        ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def infer_on_device(
        self, images: object, schedule: Sequence[int] | None = None, *, stream: int = LEGACY_STREAM
    ) -> DeviceArray:
        """Logits that stay on the GPU, of images that are there: no copy to the host, and no waiting.

        Args:
            images: Contiguous, with `__cuda_array_interface__` (torch, CuPy, Numba), of the engine's shape and type.
            schedule: As for `infer`.
            stream: The caller's, as a number: `torch.cuda.current_stream().cuda_stream` unless that is the default one.

        Returns:
            Logits [B, classes] in the engine's output type; `torch.as_tensor(logits, device="cuda")` shares their
            memory, which the next call writes over.

        Raises:
            DataError: Images of another shape or type than the engine takes, on the host, or more than a profile holds.
            UsageError: A schedule outside its range, or for an engine whose schedule is fixed.
        """
        array = device_array(images)
        self._check_images(array)
        outputs = self._session.run_on_device(array, self._amounts(schedule), stream=stream or LEGACY_STREAM)
        return outputs[self.record.outputs[0].name]

    def trace(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, tensors: bool = False
    ) -> Trace:
        """Not to be had: TensorRT fuses the tensors of a plan away.

        Raises:
            ArtifactError: Always.
        """
        raise ArtifactError(
            "an engine keeps its plans to itself",
            path=self.path,
            remedy=f"Compare logits, or trace {self.record.source_name}, the file it was built from",
        )

    def timer(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, graph: bool, transfers: bool
    ) -> EngineTimer:
        """Something that times calls on these images by CUDA events.

        Args:
            images: One batch that a profile holds.
            schedule: As for `infer`.
            graph: Launch a CUDA graph.
            transfers: Copy images and logits; else they stay on the device.

        Raises:
            DataError: Images of another shape or type than the engine takes.
            UsageError: No profile holds the batch, or a schedule outside its range.
        """
        self._check_images(images)
        check_batch(self.record, len(images), name=self.name)
        return EngineTimer(self._session, images, self._amounts(schedule), graph=graph, transfers=transfers)

    def memory(self) -> EngineMemory:
        """What the engine says it needs on the GPU."""
        return self._session.memory()

    @property
    def engine(self) -> Engine:
        """Itself."""
        return self

    @property
    def build(self) -> dict[str, str]:
        """Of its sidecar."""
        record = self.record
        batches = " ".join(map(str, record.profiles))
        return {"flavor": record.flavor.label, "precision": record.precision, "batch": batches}

    @property
    def batches(self) -> tuple[int, ...]:
        """The optimum of each profile."""
        return tuple(profile.opt for profile in self.record.profiles)

    @property
    def amounts(self) -> tuple[int, ...] | None:
        """Of its schedule input; None if it has none."""
        return self._amounts(None)

    def takes_batch(self, size: int) -> bool:
        """Whether a profile holds it, so that nothing is padded or cut."""
        return any(profile.min <= size <= profile.max for profile in self.record.profiles)

    def close(self) -> None:
        """Free the GPU's memory."""
        self._session.close()

    def _check_images(self, images: NDArray[np.generic] | DeviceArray) -> None:
        if (
            len(images.shape) != 4
            or images.shape[1:] != self._image.shape[1:]
            or (images.dtype == np.uint8) != self.pixels_in
        ):
            raise DataError(
                f"takes {self._image.type} {list(self._image.shape)}, was given {images.dtype} {list(images.shape)}",
                path=self.path,
            )
        check_not_empty(images.shape[0], self.path)

    def _amounts(self, schedule: Sequence[int] | None) -> tuple[int, ...] | None:
        return amounts_for(self.record, schedule, name=self.name)


def open_runner(path: Path, *, threads: int | None = None, weight_budget: int | None = None) -> TensorrtRunner:
    """Load an engine.

    Args:
        path: `.plan` or `.engine`, with its sidecar.
        threads: Ignored: engines run on the GPU.
        weight_budget: Bytes of weights to hold on the GPU, for an engine built with --weight-streaming; None leaves it
            to TensorRT.

    Raises:
        ArtifactError: No engine, a damaged one, or one without its sidecar.
        EnvironmentMissing: TensorRT, its version, the plugin library or the GPU is not what the engine needs.
    """
    return TensorrtRunner(path, weight_budget=weight_budget)


def load_runtime(path: Path) -> Callable[[], int]:
    """Import the TensorRT that an engine is of, and make CUDA's context.

    Returns:
        Counts the free bytes of the GPU.
    """
    importlib.import_module(read_sidecar(path).flavor.package)
    device = Device()
    device.memory()  # asking makes the context
    return lambda: device.memory()[0]
