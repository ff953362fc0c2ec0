"""OpenVINO on the CPU. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, OpensParts, Runner, Trace, check_not_empty
from tmdeploy.backends.exported import (
    checked_logits,
    checked_trace,
    named_tensors,
    preprocessing_of,
    schedule_input,
)
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, DataError, EnvironmentMissing, UsageError
from tmdeploy.graph.base import Pass, run_pass, run_passes
from tmdeploy.graph.inline_bodies import InlineBodies
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.graph.require_input import RequireInput
from tmdeploy.graph.step_outputs import StepOutputs
from tmdeploy.lazy import require
from tmdeploy.native.library import NativeLibrary
from tmdeploy.native.openvino import BUILD_COMMAND, openvino_library
from tmdeploy.ops import DOMAIN
from tmdeploy.system.boundary import foreign_run, library_call

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("f32", "bf16")


class OpenvinoRunner(Runner):
    """An ONNX file compiled for the CPU; see `backends.base.Runner`.

    The schedule of a file with a runtime schedule is a constant until a caller brings another one: then the file is
    compiled a second time, with the schedule as an input. A trace is compiled apart too, with more outputs.

    Attributes:
        load_seconds: Time to read and compile, seconds.
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
        precision: str = "f32",
    ) -> None:
        self.path, self.name = path, name or path.name
        self._threads, self._precision, self._bytes = threads, precision, model
        start = perf_counter()
        self._core = Core(path, threads=threads, native=native, precision=precision)
        proto, self.metadata = read_onnx(path, model)
        if not proto.graph.output:
            raise ArtifactError("computes nothing", path=path, remedy="Export it again")
        self._logits = proto.graph.output[0].name
        compiled = self._core.compile(proto)
        self._input, self._dtype, self._shape = self._image_input(compiled)
        self._requests = {(False, False): compiled.create_infer_request()}
        self.load_seconds = perf_counter() - start
        self.pixels_in = self._dtype == np.uint8
        height, width = self._shape[1:3] if self.pixels_in else self._shape[2:]
        self.preprocessing = preprocessing_of(self.metadata, path, height, width)
        self.class_names = self.card.class_names if self.card is not None else ()
        self.facts = RunnerFacts(
            backend="openvino",
            version=self._core.version,
            precision=self._precision_name(),
            threads=threads,
            native=self._core.library is not None,
            method=self.card.reduction.method if self.card is not None else "",
            lowering=self._lowering(self.metadata) if self.metadata is not None else "",
            in_reports={"device": "CPU"},
        )

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes].

        Raises:
            DataError: Images of another shape or type than the file takes.
            UsageError: A schedule for a file whose schedule is fixed, or one of the wrong length.
        """
        return checked_logits(self._run(images, schedule, traced=False)[self._logits], len(images), self.path)

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
        values = self._run(images, schedule, traced=True)
        return checked_trace(self.metadata, values, self._logits, len(images), self.path, tensors=tensors)

    @property
    def parts(self) -> OpensParts:
        """Itself."""
        return self

    def open_part(self, model: bytes) -> OpenvinoPart:
        """A piece of the graph, compiled as the whole is."""
        import onnx

        return OpenvinoPart(self._core, onnx.load_from_string(model), self.metadata)

    def close(self) -> None:
        """Drop the compiled models, and what could compile them again."""
        self._requests.clear()
        vars(self).pop("_core", None)

    @property
    def schedule_length(self) -> int:
        """Reduction steps whose amount a caller can override; 0 when the schedule is fixed."""
        metadata = self.metadata
        return len(metadata.card.reduction.layers) if metadata is not None and metadata.schedule_input else 0

    def _precision_name(self) -> str:
        if self._precision != "f32":
            return self._precision
        return self.metadata.precision if self.metadata is not None else "fp32"

    def _lowering(self, metadata: ArtifactMetadata) -> str:
        if not metadata.steps:
            return "no reduction"
        if metadata.lowering == "portable":
            return "portable (standard ops in the file)"
        library = self._core.library
        return f"native ({library.path})" if library is not None else "portable (function bodies, inlined)"

    def _image_input(self, compiled: Any) -> tuple[str, np.dtype[Any], tuple[int | None, ...]]:
        """Name, type and shape of the images; None is a dynamic dimension."""
        inputs = compiled.inputs
        if len(inputs) != 1 or inputs[0].partial_shape.rank != 4:
            shapes = ", ".join(f"{entry.any_name} {entry.partial_shape}" for entry in inputs)
            raise ArtifactError(
                f"takes {shapes or 'nothing'}, not one batch of images",
                path=self.path,
                remedy="Give a model with a single 4-dimensional image input",
            )
        shape = tuple(None if side.is_dynamic else side.get_length() for side in inputs[0].partial_shape)
        dtype = np.dtype(inputs[0].get_element_type().to_dtype())
        if dtype.kind not in "fiu":  # given images for strings, OpenVINO (2026.4) ends the process
            raise ArtifactError(
                f"takes {dtype.name} for images", path=self.path, remedy="Give a model whose input is of numbers"
            )
        return inputs[0].any_name, dtype, shape

    def _run(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None, *, traced: bool
    ) -> dict[str, NDArray[Any]]:
        expected = self._shape
        fits = images.ndim == 4 and all(side in {None, got} for side, got in zip(expected, images.shape, strict=True))
        if not fits or (self._dtype == np.uint8) != (images.dtype == np.uint8):
            takes = ", ".join("batch" if side is None else str(side) for side in expected)
            raise DataError(
                f"takes {self._dtype} [{takes}], but was given {images.dtype} {list(images.shape)}", path=self.path
            )
        check_not_empty(len(images), self.path)
        feeds: dict[str, NDArray[Any]] = {self._input: np.ascontiguousarray(images, dtype=self._dtype)}
        if schedule is not None:
            feeds[schedule_input(self.metadata, self.name, schedule)] = np.asarray(schedule, dtype=np.int64)
        request = self._request(schedule is not None, traced)
        names = [self._logits, *(self._step_names() if traced else ())]
        return run(request, feeds, names, path=self.path)

    def _step_names(self) -> list[str]:
        assert self.metadata is not None  # noqa: S101 - trace refused
        names = (name for step in self.metadata.steps for _, name in named_tensors(step, tensors=True))
        return list(dict.fromkeys(names))

    def _request(self, scheduled: bool, traced: bool) -> Any:
        """Compiled on first use."""
        key = (scheduled, traced)
        if key not in self._requests:
            proto, _ = read_onnx(self.path, self._bytes)
            assert self.metadata is not None  # noqa: S101 - trace and schedule_input refused
            passes: list[Pass[onnx.ModelProto]] = [StepOutputs(self.metadata)] if traced else []
            passes += [RequireInput(str(self.metadata.schedule_input))] if scheduled else []  # else it is a constant
            proto, _ = run_passes(proto, passes)
            self._requests[key] = self._core.compile(proto).create_infer_request()
        return self._requests[key]


class Core:
    """OpenVINO with the extension, where there is one and native code is wanted.

    Args:
        path: Path for messages.
        threads: None leaves OpenVINO's default.
        native: Load the extension library where there is one; else nodes of the op set are replaced by their bodies.
        precision: Precision of the arithmetic: `f32`, or `bf16`. Plans are made in f32 in both.

    Raises:
        UsageError: No such precision.
        EnvironmentMissing: OpenVINO is not installed, the extension does not load, or the processor has no bfloat16.
    """

    def __init__(self, path: Path, *, threads: int | None, native: bool, precision: str) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"OpenVINO has no precision '{precision}'", remedy=f"Use {' or '.join(PRECISIONS)}")
        self._openvino = require("openvino", purpose=f"running {path} with --backend openvino")
        self.path, self._precision = path, precision
        self.version = str(self._openvino.__version__).partition("-")[0]
        self._core = self._openvino.Core()
        self.library = openvino_library() if native else None
        if self.library is not None:
            self._add_extension(self.library)
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EnvironmentMissing("this processor has no bfloat16 arithmetic", remedy="Use f32")
        # Named always: where the processor has bfloat16, it is OpenVINO's default.
        self._config: dict[str, object] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads

    def compile(self, proto: onnx.ModelProto) -> Any:
        """A compiled model.

        Raises:
            ArtifactError: OpenVINO refuses it.
        """
        with library_call(self.path, "OpenVINO cannot load it", told=telling_line), foreign_run(self.path):
            if self.library is None and any(node.domain == DOMAIN for node in proto.graph.node):
                proto, _ = run_pass(proto, InlineBodies())
            model = self._core.read_model(proto.SerializeToString())
            if self._precision == "bf16":
                _reduce_in_bfloat16(model)
            return self._core.compile_model(model, "CPU", self._config)

    def _add_extension(self, library: NativeLibrary) -> None:
        try:
            self._core.add_extension(str(library.path))
        except Exception as error:
            raise EnvironmentMissing(
                f"OpenVINO {self.version} does not load the native library {library.path} ({telling_line(error)})",
                remedy=f"Build it again with {BUILD_COMMAND}, or run with --no-native",
            ) from error


def _reduce_in_bfloat16(model: Any) -> None:
    """Let TokenReduce take and give bfloat16, which its neighbours compute in; the logits are the same.

    OpenVINO gives an extension's op the types of the graph, so that it would widen the tokens before every reduction
    and narrow them after it: two passes over memory, and twice the memory in the reduction itself.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "TokenReduce":
            continue
        before = node.output(0).get_element_type()
        tokens = opset13.convert(node.input(0).get_source_output(), "bf16")
        users = list(node.output(0).get_target_inputs())
        names = node.output(0).get_names()
        node.input(0).replace_source_output(tokens.output(0))
        reduced = opset13.convert(node.output(0), before.to_string())
        for user in users:
            user.replace_source_output(reduced.output(0))
        node.output(0).get_tensor().set_names(set())
        reduced.output(0).get_tensor().set_names(names)  # a trace asks for them by name
    model.validate_nodes_and_infer_types()


class OpenvinoPart:
    """A piece of a graph; see `backends.base.Part`.

    Args:
        core: What to compile with.
        proto: The piece; changed in place.
        metadata: Metadata of the whole file.
    """

    def __init__(self, core: Core, proto: onnx.ModelProto, metadata: ArtifactMetadata | None) -> None:
        if metadata is not None and metadata.schedule_input is not None:
            proto, _ = run_pass(proto, RequireInput(metadata.schedule_input))
        compiled = core.compile(proto)
        self._path = core.path
        self._request = compiled.create_infer_request()
        self.inputs = {
            name: np.dtype(entry.get_element_type().to_dtype()) for entry in compiled.inputs for name in entry.names
        }

    def run(self, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return run(self._request, feeds, names, path=self._path)


def run(request: Any, feeds: dict[str, NDArray[Any]], names: Sequence[str], *, path: Path) -> dict[str, NDArray[Any]]:
    """Outputs by name.

    Raises:
        ArtifactError: OpenVINO failed.
    """
    with library_call(path, "OpenVINO failed while running it", told=telling_line), foreign_run(path, request.cancel):
        got = request.infer(feeds, share_inputs=True)
        return {name: got[name] for name in names}


def load_runtime(path: Path) -> None:
    """Import OpenVINO."""
    require("openvino", purpose=f"running {path}")


def telling_line(error: Exception) -> str:
    """OpenVINO's messages begin with where in its sources they come from, and end with what was wrong.

    Those of its ONNX frontend have a summary behind that, which repeats an op's name and points to a manual.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if line.startswith("-- No conversion rule found"):
            return line.removeprefix("-- ")
    lines = [line for line in lines if not line.startswith(("Summary:", "-- Conversion is failed for"))]
    return lines[-1] if lines else type(error).__name__


def open_runner(
    path: Path,
    *,
    threads: int | None = None,
    model: bytes | None = None,
    name: str = "",
    native: bool = True,
    precision: str = "f32",
) -> OpenvinoRunner:
    """Load an ONNX file.

    Args:
        path: The file.
        threads: None leaves OpenVINO's default.
        model: Serialised model to load instead of the file's content.
        name: Name in tables; the file's name by default.
        native: Load the extension library where there is one; else the file's function bodies run, inlined.
        precision: Precision of the arithmetic: `f32`, or `bf16` on a processor that has it.

    Raises:
        ArtifactError: It is empty, truncated, no ONNX file, or one that OpenVINO cannot run.
        EnvironmentMissing: OpenVINO is not installed, its extension does not load, or there is no bfloat16.
        UsageError: No such precision.
    """
    return OpenvinoRunner(path, threads=threads, model=model, name=name, native=native, precision=precision)
