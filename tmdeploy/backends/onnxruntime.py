"""ONNX Runtime on the CPU: the embedded default. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, Trace
from tmdeploy.backends.exported import named_tensors, preprocessing_of, schedule_input, step_trace, with_step_outputs
from tmdeploy.errors import ArtifactError, DataError, EnvironmentMissing
from tmdeploy.lazy import require
from tmdeploy.metadata import METADATA_KEY, ArtifactMetadata, parse
from tmdeploy.native.library import NativeLibrary, ort_library

if TYPE_CHECKING:
    import onnx

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class OnnxRuntimeRunner:
    """An ONNX file in a CPU session; see `backends.base.Runner`.

    Attributes:
        load_seconds: Time to create the session, seconds.
        preprocessing: From the metadata; ImageNet's usual one, at the input's size, for a foreign file.
        pixels_in: Whether it takes uint8 pixels.
        class_names: From the metadata.
        native: Whether the native library is registered.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        model: bytes | None = None,
        name: str = "",
        native: bool = True,
    ) -> None:
        self.path, self.name = path, name or path.name
        self._threads = threads
        self._bytes = model
        self._library = ort_library() if native else None
        self.native = self._library is not None
        start = perf_counter()
        self._session = self._make_session(path if model is None else model)
        self.load_seconds = perf_counter() - start
        self._traced: Any = None
        entries = self._session.get_modelmeta().custom_metadata_map
        text = entries.get(METADATA_KEY)
        self.metadata: ArtifactMetadata | None = None if text is None else parse(text, path=str(path))
        self._input = self._image_input()
        self.pixels_in = self._input.type == "tensor(uint8)"
        height, width = self._input.shape[1:3] if self.pixels_in else self._input.shape[2:]
        self.preprocessing = preprocessing_of(self.metadata, height, width)
        self.class_names: tuple[str, ...] = self.metadata.class_names if self.metadata is not None else ()

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes].

        Raises:
            DataError: Images of another shape or type than the file takes.
            UsageError: A schedule for a file whose schedule is fixed, or one of the wrong length.
        """
        feeds = self._feeds(images, schedule)
        return self._run(self._session, [self._session.get_outputs()[0].name], feeds)[0].astype(np.float32, copy=False)

    def trace(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, tensors: bool = False
    ) -> Trace:
        """Logits and plans; with `tensors`, the tokens before and after every step too.

        Raises:
            ArtifactError: The file does not say where its plans are.
        """
        session = self._trace_session()
        assert self.metadata is not None  # noqa: S101 - _trace_session checked it
        steps = self.metadata.steps
        wanted = [self._session.get_outputs()[0].name]
        for step in steps:
            wanted += [name for _, name in named_tensors(step, tensors=tensors)]
        names = list(dict.fromkeys(wanted))
        values = dict(zip(names, self._run(session, names, self._feeds(images, schedule)), strict=True))
        return Trace(
            values[wanted[0]].astype(np.float32, copy=False),
            tuple(step_trace(step, values, tensors=tensors) for step in steps),
        )

    def describe(self) -> dict[str, str]:
        """What runs."""
        import onnxruntime

        described = {
            "backend": "onnxruntime",
            "version": str(onnxruntime.__version__),
            "provider": "CPUExecutionProvider",
            "threads": str(self._threads or "default"),
        }
        if self.metadata is not None:
            described["method"] = self.metadata.method
            described["precision"] = self.metadata.precision
            described["lowering"] = self._lowering(self.metadata)
        return described

    def _lowering(self, metadata: ArtifactMetadata) -> str:
        if not metadata.steps:
            return "no reduction"
        if metadata.lowering == "portable":
            return "portable (standard ops in the file)"
        if self._library is None:
            return "portable (function bodies)"
        # A registered kernel claims its node before ONNX Runtime looks at the node's function body.
        return f"native ({self._library.path})"

    def open_part(self, model: bytes) -> OnnxRuntimePart:
        """A piece of the graph, run as the whole is."""
        return OnnxRuntimePart(self._make_session(model))

    def close(self) -> None:
        """Drop the sessions."""
        del self._session
        self._traced = None

    @property
    def schedule_length(self) -> int:
        """Reduction steps whose amount a caller can override; 0 when the schedule is fixed."""
        metadata = self.metadata
        return len(metadata.layers) if metadata is not None and metadata.runtime_schedule else 0

    def _image_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs)
            raise ArtifactError(
                f"takes {shapes or 'nothing'}, not one batch of images",
                path=self.path,
                remedy="Give a model with a single 4-dimensional image input",
            )
        return inputs[0]

    def _feeds(self, images: NDArray[np.generic], schedule: Sequence[int] | None) -> dict[str, NDArray[np.generic]]:
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
        feeds: dict[str, NDArray[np.generic]] = {self._input.name: images.astype(dtype, copy=False)}
        if schedule is not None:
            feeds[schedule_input(self.metadata, self.name, schedule)] = np.asarray(schedule, dtype=np.int64)
        return feeds

    def _run(self, session: Any, names: list[str], feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[Any]]:
        try:
            return session.run(names, feeds)  # type: ignore[no-any-return]
        except Exception as error:
            raise ArtifactError(
                f"ONNX Runtime failed while running it ({_first_line(error)})", path=self.path
            ) from error

    def _trace_session(self) -> Any:
        if self._traced is None:
            if self.metadata is None:
                raise ArtifactError(
                    "carries no tmdeploy metadata, so its plans cannot be found",
                    path=self.path,
                    remedy="Export it with tmdeploy export",
                )
            model = with_step_outputs(self._load_proto(), self.metadata)
            self._traced = self._make_session(model.SerializeToString())
        return self._traced

    def _make_session(self, source: Path | bytes) -> Any:
        return make_session(source, path=self.path, threads=self._threads, native=self.native)

    def _load_proto(self) -> onnx.ModelProto:
        import onnx

        return onnx.load_from_string(self._bytes) if self._bytes is not None else onnx.load(str(self.path))


class OnnxRuntimePart:
    """A piece of a graph in a session; see `backends.base.Part`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        entries = [*session.get_inputs(), *session.get_overridable_initializers()]
        self.inputs = {entry.name: np.dtype(_TYPES[entry.type]) for entry in entries if entry.type in _TYPES}

    def run(self, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return dict(zip(names, self._session.run(list(names), feeds), strict=True))


def open_runner(
    path: Path, *, threads: int | None = None, model: bytes | None = None, name: str = "", native: bool = True
) -> OnnxRuntimeRunner:
    """Load an ONNX file.

    Args:
        path: The file.
        threads: Intra-op threads; None leaves ONNX Runtime's default.
        model: Serialised, instead of the file's content.
        name: In tables; the file's name by default.
        native: Register the native library where there is one; else the file's function bodies run.

    Raises:
        ArtifactError: It is empty, truncated, no ONNX file, or one that ONNX Runtime cannot run.
    """
    return OnnxRuntimeRunner(path, threads=threads, model=model, name=name, native=native)


def make_session(source: Path | bytes, *, path: Path, threads: int | None = None, native: bool = True) -> Any:
    """A CPU session without warnings on stderr and without spinning threads.

    Idle sessions that spin would take the cores from whichever session is measured next.

    Args:
        source: A file, or a serialised model.
        path: For messages.
        threads: Intra-op threads; None leaves ONNX Runtime's default.
        native: Register the native library where there is one.

    Raises:
        ArtifactError: ONNX Runtime refuses the model.
        EnvironmentMissing: The native library does not load.
    """
    runtime = require("onnxruntime", purpose=f"running {path}")
    if isinstance(source, Path) and source.stat().st_size == 0:
        raise ArtifactError("is empty", path=path, remedy="Export it again")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    library = ort_library() if native else None
    if library is not None:
        _register(options, library)
    given = source if isinstance(source, bytes) else str(source)
    try:
        try:
            return runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if "float8" not in str(error):
                raise
            # It fuses float8 pairs into products that it has for integers only (seen in 1.31.1)
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            return runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        text = _first_line(error)
        if "Protobuf parsing failed" in text or "INVALID_PROTOBUF" in text:
            raise ArtifactError("is no ONNX file, or a truncated one", path=path, remedy="Export it again") from error
        raise ArtifactError(f"ONNX Runtime cannot load it ({text})", path=path) from error


def _register(options: Any, library: NativeLibrary) -> None:
    try:
        options.register_custom_ops_library(str(library.path))
    except Exception as error:
        raise EnvironmentMissing(
            f"the native library {library.path} does not load ({_first_line(error)})",
            remedy="Build it again with tmdeploy plugins build, or run with TMDEPLOY_NATIVE=0",
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
