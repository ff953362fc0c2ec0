"""ONNX Runtime: the CPU, the embedded default, and what its GPU providers share with it. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, OpensParts, Part, Runner, Trace, check_not_empty
from tmdeploy.backends.exported import (
    checked_logits,
    checked_trace,
    named_tensors,
    preprocessing_of,
    schedule_input,
)
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.backends.onnxruntime.session import CpuTarget, Target, make_session, run_session, running
from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, parse
from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.graph.base import run_pass
from tmdeploy.graph.onnx_file import Shape, check_ports, read_onnx
from tmdeploy.lazy import require
from tmdeploy.system.boundary import library_call

if TYPE_CHECKING:
    import onnx

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
Feeds = dict[str, NDArray[np.generic]]


def onnxruntime_type(element: int) -> str:
    """ONNX Runtime's name of a type that ONNX has a number for; empty if no input may be of it."""
    import onnx

    wanted = onnx.helper.tensor_dtype_to_np_dtype(element)
    return next((name for name, kind in _TYPES.items() if np.dtype(kind) == wanted), "")


@dataclass(frozen=True)
class Input:
    """An input or output: its name, ONNX Runtime's name of its type, its shape (int, name or None a side)."""

    name: str
    type: str
    shape: Shape


@dataclass(frozen=True)
class Outline:
    """What a file says of itself: inputs without and with a default, the first output, metadata entries."""

    inputs: tuple[Input, ...]
    defaults: tuple[Input, ...]
    output: Input
    entries: dict[str, str]


def _input(entry: Any) -> Input:
    return Input(entry.name, entry.type, tuple(entry.shape))


class OnnxRuntimeRunner(Runner):
    """An ONNX file in a session; see `backends.base.Runner`.

    Args:
        path: The file.
        threads: Intra-op threads; None leaves ONNX Runtime's default.
        model: Serialised model to load instead of the file's content.
        name: Name in tables; the file's name by default.
        native: On the CPU, register the native library where there is one; else the file's function bodies run.
        target: Where it computes; None is the CPU.

    Attributes:
        load_seconds: Time to create the session, seconds.
        preprocessing: From the metadata; ImageNet's usual one, at the input's size, for a foreign file.
        pixels_in: Whether it takes uint8 pixels.
        class_names: From the metadata.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        model: bytes | None = None,
        name: str = "",
        native: bool = True,
        target: Target | None = None,
    ) -> None:
        self.path, self.name = path, name or path.name
        self._threads = threads
        self._bytes = model
        self._target: Target = CpuTarget(native=native) if target is None else target
        start = perf_counter()
        self._session, outline = self._open()
        self.load_seconds = perf_counter() - start
        self._traced: Any = None
        self._output = outline.output.name
        text = outline.entries.get(METADATA_KEY)
        self.metadata = None if text is None else parse(text, path=str(path))
        self._input = self._image_input(outline.inputs)
        self.pixels_in = self._input.type == "tensor(uint8)"
        if self.metadata is not None:
            check_ports(
                self.metadata,
                path,
                images=self._input.shape,
                pixels=self.pixels_in,
                outputs=outline.output.shape,
                schedule={entry.name: entry.shape for entry in outline.defaults}.get(str(self.metadata.schedule_input)),
            )
        height, width = self._input.shape[1:3] if self.pixels_in else self._input.shape[2:]
        self.preprocessing = preprocessing_of(self.metadata, path, height, width)
        self.class_names = self.card.class_names if self.card is not None else ()
        self.facts = self._facts()

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes].

        Raises:
            DataError: Images of another shape or type than the file takes.
            UsageError: A schedule for a file whose schedule is fixed, or one of the wrong length.
            EnvironmentMissing: A library that the provider loads on first use is not there.
        """
        session, feeds = self._ready(images, schedule, traced=False)
        return checked_logits(self._run(session, [self._output], feeds)[0], len(images), self.path)

    def trace(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, tensors: bool = False
    ) -> Trace:
        """Logits and plans; with `tensors`, the tokens before and after every step too.

        Raises:
            ArtifactError: The file does not say where its plans are.
        """
        if self.metadata is None:
            raise ArtifactError(
                "carries no tmdeploy metadata, so its plans cannot be found",
                path=self.path,
                remedy="Export it with tmdeploy export",
            )
        session, feeds = self._ready(images, schedule, traced=True)
        steps = self.metadata.steps
        wanted = [self._output]
        for step in steps:
            wanted += [name for _, name in named_tensors(step, tensors=tensors)]
        names = list(dict.fromkeys(wanted))
        values = dict(zip(names, self._run(session, names, feeds), strict=True))
        return checked_trace(self.metadata, values, self._output, len(images), self.path, tensors=tensors)

    def resident(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Resident:
        """A forward pass whose input is on the device already and whose logits stay there.

        `infer` copies images to the device and logits back within every call; what this returns copies nothing.

        Args:
            images: As of `infer`; copied to the device now.
            schedule: As of `infer`.

        Returns:
            Runs the model when called, and waits for it.
        """
        import onnxruntime

        session, feeds = self._ready(images, schedule, traced=False)
        target, binding = self._target, session.io_binding()
        for name, value in feeds.items():
            # The schedule is read on the CPU: it decides shapes.
            place = (target.device, target.device_id) if name == self._input.name else ("cpu", 0)
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, *place))
        binding.bind_output(self._output, target.device, target.device_id)
        return Resident(session, binding, self.path, target)

    @property
    def parts(self) -> OpensParts:
        """Itself."""
        return self

    def open_part(self, model: bytes) -> Part:
        """A piece of the graph, run as the whole is."""
        return OnnxRuntimePart(self._make_session(model), self.path)

    def close(self) -> None:
        """Drop the sessions."""
        vars(self).pop("_session", None)
        self._traced = None

    @property
    def schedule_length(self) -> int:
        """Reduction steps whose amount a caller can override; 0 when the schedule is fixed."""
        metadata = self.metadata
        return len(metadata.card.reduction.layers) if metadata is not None and metadata.schedule_input else 0

    def _open(self) -> tuple[Any, Outline]:
        """The session that `facts` are about, and what the file says of itself."""
        session = self._make_session(self.path if self._bytes is None else self._bytes)
        with library_call(self.path, "is damaged", remedy="Export it again"):
            return session, Outline(
                inputs=tuple(map(_input, session.get_inputs())),
                defaults=tuple(map(_input, session.get_overridable_initializers())),
                output=_input(session.get_outputs()[0]),
                entries=dict(session.get_modelmeta().custom_metadata_map),
            )

    def _ready(self, images: NDArray[np.generic], schedule: Sequence[int] | None, *, traced: bool) -> tuple[Any, Feeds]:
        """The session for these inputs, and what to feed it."""
        feeds: Feeds = {self._input.name: self._checked(images)}
        if schedule is not None:
            feeds[schedule_input(self.metadata, self.name, schedule)] = np.asarray(schedule, dtype=np.int64)
        return (self._trace_session() if traced else self._session), feeds

    def _checked(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        dtype = _TYPES.get(self._input.type)
        expected = list(self._input.shape)
        fits = images.ndim == 4 and all(
            not isinstance(side, int) or side == got for side, got in zip(expected, images.shape, strict=True)
        )
        if dtype is None or not fits or (dtype is np.uint8) != (images.dtype == np.uint8):
            raise DataError(
                f"takes {self._input.type} {expected}, but was given {images.dtype} {list(images.shape)}",
                path=self.path,
            )
        check_not_empty(len(images), self.path)
        return images.astype(dtype, copy=False)

    def _facts(self) -> RunnerFacts:
        import onnxruntime

        target, metadata = self._target, self.metadata
        return RunnerFacts(
            backend=target.backend,
            version=str(onnxruntime.__version__),
            device="cpu" if target.device == "cpu" else f"{target.device}:{target.device_id}",
            precision=None if metadata is None else metadata.precision,
            threads=self._threads,
            native=target.library is not None,
            lowering="" if metadata is None else self._lowering(metadata),
            method="" if metadata is None else metadata.card.reduction.method,
            provider=target.provider,
            in_reports=target.remarks(self._session),
        )

    def _lowering(self, metadata: ArtifactMetadata) -> str:
        if not metadata.steps:
            return "no reduction"
        if metadata.lowering == "portable":
            return "portable (standard ops in the file)"
        return self._target.lowering(metadata)

    def _image_input(self, inputs: Sequence[Input]) -> Input:
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(f"{entry.name} {list(entry.shape)}" for entry in inputs)
            raise ArtifactError(
                f"takes {shapes or 'nothing'}, not one batch of images",
                path=self.path,
                remedy="Give a model with a single 4-dimensional image input",
            )
        return inputs[0]

    def _run(self, session: Any, names: list[str], feeds: Feeds) -> list[NDArray[Any]]:
        return run_session(session, names, feeds, path=self.path, cause=self._target.cause)

    def _trace_session(self) -> Any:
        if self._traced is None:
            from tmdeploy.graph.step_outputs import StepOutputs

            assert self.metadata is not None  # noqa: S101 - trace refused
            model, _ = run_pass(self._load_proto(), StepOutputs(self.metadata))
            self._traced = self._make_session(model.SerializeToString())
        return self._traced

    def _make_session(self, source: Path | bytes) -> Any:
        return make_session(source, path=self.path, threads=self._threads, target=self._target)

    def _load_proto(self) -> onnx.ModelProto:
        return read_onnx(self.path, self._bytes)[0]


class Resident:
    """A forward pass bound to memory of the device; see `OnnxRuntimeRunner.resident`."""

    def __init__(self, session: Any, binding: Any, path: Path, target: Target) -> None:
        self._session, self._binding, self._path, self._target = session, binding, path, target

    def __call__(self) -> None:
        """Run and wait.

        Raises:
            ArtifactError: ONNX Runtime failed.
            EnvironmentMissing: A library that the provider loads on first use is not there.
        """
        with running(self._path, self._target.cause):
            self._session.run_with_iobinding(self._binding)

    def logits(self) -> Array:
        """Copied from the device: f32 [B, classes] of the last call."""
        return self._binding.copy_outputs_to_cpu()[0].astype(np.float32, copy=False)  # type: ignore[no-any-return]


class OnnxRuntimePart:
    """A piece of a graph in a session; see `backends.base.Part`."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session, self._path = session, path
        entries = [*session.get_inputs(), *session.get_overridable_initializers()]
        self.inputs = {entry.name: np.dtype(_TYPES[entry.type]) for entry in entries if entry.type in _TYPES}

    def run(self, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return dict(zip(names, run_session(self._session, names, feeds, path=self._path), strict=True))


def open_bodies(model: bytes, path: Path) -> OnnxRuntimePart:
    """A piece of a graph on the CPU, its function bodies and no native kernel: what every runtime can fall back to.

    Args:
        model: Serialised model.
        path: Path of its file, for messages.

    Raises:
        ArtifactError: ONNX Runtime refuses it.
    """
    return OnnxRuntimePart(make_session(model, path=path, threads=1, target=CpuTarget(native=False)), path)


def open_runner(
    path: Path, *, threads: int | None = None, model: bytes | None = None, name: str = "", native: bool = True
) -> OnnxRuntimeRunner:
    """Load an ONNX file.

    Args:
        path: The file.
        threads: Intra-op threads; None leaves ONNX Runtime's default.
        model: Serialised model to load instead of the file's content.
        name: Name in tables; the file's name by default.
        native: Register the native library where there is one; else the file's function bodies run.

    Raises:
        ArtifactError: It is empty, truncated, no ONNX file, or one that ONNX Runtime cannot run.
    """
    return OnnxRuntimeRunner(path, threads=threads, model=model, name=name, native=native)


def load_runtime(path: Path) -> None:
    """Import ONNX Runtime."""
    require("onnxruntime", purpose=f"running {path}")
