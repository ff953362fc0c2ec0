"""ONNX Runtime on the GPU, by its TensorRT provider. No torch in here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.exported import schedule_input
from tmdeploy.backends.onnxruntime.gpu import GpuTarget, cuda_options
from tmdeploy.backends.onnxruntime.packages import CUDA, TENSORRT
from tmdeploy.backends.onnxruntime.runner import (
    Feeds,
    Input,
    OnnxRuntimeRunner,
    Outline,
    load_runtime,
    onnxruntime_type,
)
from tmdeploy.backends.onnxruntime.session import Target
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import EnvironmentMissing, UsageError
from tmdeploy.graph.base import Pass, run_pass, run_passes
from tmdeploy.graph.expand_ops import ExpandOps
from tmdeploy.graph.fix_input import FixInput
from tmdeploy.graph.fix_shapes import FixShapes
from tmdeploy.graph.name_nodes import NameNodes
from tmdeploy.graph.narrow_doubles import NarrowDoubles
from tmdeploy.graph.onnx_file import shape_of
from tmdeploy.graph.step_outputs import StepOutputs
from tmdeploy.native.trust import make_private_folder
from tmdeploy.system.cache import user_cache
from tmdeploy.tensorrt.build.source import fixed_images, load_source

if TYPE_CHECKING:
    import onnx

    from tmdeploy.backends.base import Part

__all__ = ["OnnxRuntimeTensorrtRunner", "TensorrtTarget", "load_runtime", "open_runner"]

TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"


def tensorrt_options(device_id: int, folder: Path | None) -> dict[str, str]:
    """Options of the TensorRT provider, whose Python interface takes no 0 and 1 for booleans.

    Args:
        device_id: CUDA's number of the device.
        folder: For the engines of one model; None keeps none.
    """
    options = {
        "device_id": str(device_id),
        # Weakly typed: with one of these TensorRT would round what the file keeps in fp32, planners first of all.
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
    }
    if folder is not None:
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder.parent),
        }
    return options


class TensorrtTarget(GpuTarget):
    """ONNX Runtime's TensorRT provider, with the CUDA provider for what TensorRT does not take."""

    backend = "onnxruntime-tensorrt"
    provider = TENSORRT

    def prepare(self, runtime: Any, path: Path) -> None:
        """Turn TF32 off, for which the provider has no option, and look for the provider.

        Raises:
            EnvironmentMissing: The package was built without it.
        """
        os.environ.setdefault(TF32_VARIABLE, "0")  # NVIDIA's libraries read it when they start
        super().prepare(runtime, path)

    def providers(self, source: Path | bytes) -> list[tuple[str, dict[str, str]]]:
        """TensorRT, then CUDA.

        Every model has a cache folder of its own: the provider names its engines by the graph's structure, so that a
        model would find the engine of another one, which has other weights or another batch.
        """
        content = source if isinstance(source, bytes) else source.read_bytes()
        return [
            (TENSORRT, tensorrt_options(self.device_id, engine_folder(content))),
            (CUDA, cuda_options(self.device_id)),
        ]

    def remarks(self, session: Any) -> dict[str, str]:
        """As every GPU's, and what TF32 was set to."""
        chosen = os.environ.get(TF32_VARIABLE)
        return {**super().remarks(session), "tf32": "off" if chosen == "0" else f"{TF32_VARIABLE}={chosen}"}

    def lowering(self, metadata: ArtifactMetadata) -> str:
        """Always the bodies."""
        return "portable (function bodies, inlined; planners accumulate in fp32)"


class OnnxRuntimeTensorrtRunner(OnnxRuntimeRunner):
    """An ONNX file in sessions of TensorRT's provider: one per batch size, schedule, and trace or not.

    With open shapes the provider builds an engine when it first meets them, and again whenever they leave the range it
    has seen; with fixed ones it builds once, when the session is made, and TensorRT computes every shape in advance.
    The session made first is that of the file's batch, or of a single image.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        model: bytes | None = None,
        name: str = "",
        target: Target | None = None,
    ) -> None:
        self._sessions: dict[tuple[int, tuple[int, ...] | None, bool], Any] = {}
        super().__init__(
            path, threads=threads, model=model, name=name, target=TensorrtTarget() if target is None else target
        )

    def open_part(self, model: bytes) -> Part:
        """A piece of the graph, run as the whole is: its session is made when its shapes are known."""
        return FixedPart(self, model)

    def close(self) -> None:
        """Drop the sessions."""
        vars(self).pop("_sessions", None)
        super().close()

    def _open(self) -> tuple[Any, Outline]:
        proto, metadata = self._load()
        if metadata is not None and metadata.precision != "fp32":
            raise UsageError(
                f"{self.name} is {metadata.precision}, and ONNX Runtime's TensorRT provider has weakly typed networks "
                "only, which do not keep planners in fp32",
                remedy="Build an engine (tmdeploy build), or run it with --backend onnxruntime-cuda",
            )
        images = fixed_images(proto, self.path)
        shape = shape_of(images)
        batch = shape[0] if isinstance(shape[0], int) else 1
        session = self._session_for(batch, None, traced=False)
        inputs = (Input(images.name, onnxruntime_type(images.type.tensor_type.elem_type), shape),)
        entries = {entry.key: entry.value for entry in proto.metadata_props}
        defaults = tuple(
            Input(value.name, onnxruntime_type(value.type.tensor_type.elem_type), shape_of(value))
            for value in proto.graph.input
            if value.name != images.name
        )
        output = Input(proto.graph.output[0].name, "", shape_of(proto.graph.output[0]))
        return session, Outline(inputs, defaults, output, entries)

    def _ready(self, images: NDArray[np.generic], schedule: Sequence[int] | None, *, traced: bool) -> tuple[Any, Feeds]:
        checked = self._checked(images)
        amounts = None
        if schedule is not None:
            schedule_input(self.metadata, self.name, schedule)
            amounts = tuple(schedule)
        return self._session_for(len(images), amounts, traced=traced), {self._input.name: checked}

    def _session_for(self, batch: int, schedule: tuple[int, ...] | None, *, traced: bool) -> Any:
        key = (batch, schedule, traced)
        if key not in self._sessions:
            proto, metadata = self._load()
            fixed = {fixed_images(proto, self.path).name: (batch,)}
            if traced and metadata is not None:
                proto, _ = run_pass(proto, StepOutputs(metadata))
            kind = metadata.schedule_input if metadata is not None else None
            amounts = {str(kind): np.asarray(schedule, np.int64)} if schedule is not None else {}
            self._sessions[key] = self._make_session(lowered(proto, kind, amounts, fixed).SerializeToString())
        return self._sessions[key]

    def _load(self) -> tuple[onnx.ModelProto, ArtifactMetadata | None]:
        return load_source(self.path, self._bytes)


def lowered(
    model: onnx.ModelProto,
    schedule: str | None,
    constants: Mapping[str, NDArray[np.int64]],
    shapes: Mapping[str, tuple[int, ...]],
) -> onnx.ModelProto:
    """The graph as TensorRT's provider gets it: standard ops in fp32, constants for inputs, fixed leading dimensions.

    Args:
        model: Changed in place.
        schedule: Name of its schedule input, which becomes the constant it defaults to.
        constants: Values of inputs that become constants.
        shapes: Leading dimensions of inputs.
    """
    names = {*constants, *(() if schedule is None else (schedule,))}
    passes: list[Pass[onnx.ModelProto]] = [FixInput(name, constants.get(name)) for name in names]
    passes += [FixShapes(shapes), NameNodes(), ExpandOps(), NarrowDoubles()]
    return run_passes(model, passes)[0]


class FixedPart:
    """A piece of a graph, in sessions for the shapes it is given; see `backends.base.Part`."""

    def __init__(self, runner: OnnxRuntimeTensorrtRunner, model: bytes) -> None:
        import onnx

        self._runner, self._model = runner, model
        self._sessions: dict[object, Any] = {}
        graph = onnx.load_from_string(model).graph
        self.inputs = {
            value.name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for value in graph.input
        }

    def run(self, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name. Integers that are one-dimensional, as schedules and shapes are, become constants."""
        import onnx

        constants = {name: value for name, value in feeds.items() if value.dtype == np.int64 and value.ndim <= 1}
        others = {name: value for name, value in feeds.items() if name not in constants}
        key = (
            *((name, value.shape) for name, value in sorted(others.items())),
            *((name, value.tobytes()) for name, value in sorted(constants.items())),
        )
        if key not in self._sessions:
            proto = onnx.load_from_string(self._model)
            made = lowered(proto, None, constants, {name: value.shape for name, value in others.items()})
            self._sessions[key] = self._runner._make_session(made.SerializeToString())
        return dict(zip(names, self._runner._run(self._sessions[key], list(names), others), strict=True))


def engine_folder(model: bytes) -> Path | None:
    """Where the engines of a model are kept; None where only others, or others too, can write the user's cache folder.

    Args:
        model: Serialised, as the provider gets it.
    """
    import onnxruntime

    digest = hashlib.sha256(model)
    digest.update(f"{onnxruntime.__version__} tf32={os.environ.get(TF32_VARIABLE)}".encode())
    folder = user_cache() / "onnxruntime-tensorrt" / digest.hexdigest()[:32]
    try:
        make_private_folder(folder)
    except (OSError, EnvironmentMissing):
        return None
    return folder if os.access(folder, os.W_OK) else None


def open_runner(
    path: Path,
    *,
    threads: int | None = None,
    model: bytes | None = None,
    name: str = "",
    device_id: int = 0,
) -> OnnxRuntimeTensorrtRunner:
    """Load an ONNX file on the GPU, for which an engine is built, or found in the user's cache.

    Args:
        path: The file, of fp32.
        threads: Threads for the few nodes that stay on the CPU; None leaves the default.
        model: Serialised model to load instead of the file's content.
        name: Name in tables; the file's name by default.
        device_id: CUDA's number of the device; CUDA_VISIBLE_DEVICES renumbers them.

    Raises:
        ArtifactError: It is empty, truncated, no ONNX file, or one that ONNX Runtime cannot run.
        EnvironmentMissing: No onnxruntime-gpu, no TensorRT, no libraries of CUDA, no driver, no device: nothing runs
            elsewhere instead.
        UsageError: A file of another precision.
    """
    return OnnxRuntimeTensorrtRunner(path, threads=threads, model=model, name=name, target=TensorrtTarget(device_id))
