"""Sessions of ONNX Runtime, and the CPU as the place where one computes."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from tmdeploy.backends.onnxruntime.defects import read_proto, refuse_what_crashes
from tmdeploy.backends.onnxruntime.packages import oldest_runtime, telling
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, EnvironmentMissing, TmdeployError
from tmdeploy.graph.onnx_file import AGAIN, NOT_ONNX, check_there, standard_opset
from tmdeploy.lazy import require
from tmdeploy.native.library import NativeLibrary, ort_library
from tmdeploy.system.boundary import first_line, foreign_run

CPU = "CPUExecutionProvider"


class Target(Protocol):
    """Where a session computes. The CPU's is here, those of GPUs are in modules of their own.

    Attributes:
        backend: Name for the user.
        provider: ONNX Runtime's name.
        device: Device of resident inputs and outputs: `cpu` or `cuda`.
        device_id: Device number.
        library: The custom-op library to register; None runs function bodies.
    """

    @property
    def backend(self) -> str: ...  # noqa: D102 - as above
    @property
    def provider(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def device_id(self) -> int: ...  # noqa: D102
    @property
    def library(self) -> NativeLibrary | None: ...  # noqa: D102

    def prepare(self, runtime: Any, path: Path) -> None:
        """What has to be so before a session is made.

        Raises:
            EnvironmentMissing: It is not.
        """
        ...

    def configure(self, options: Any) -> None:
        """Set session options of its own."""
        ...

    def providers(self, source: Path | bytes) -> list[tuple[str, dict[str, str]]]:
        """ONNX Runtime's providers in order of preference, with their options."""
        ...

    def cause(self, runtime: Any, error: Exception) -> EnvironmentMissing | None:
        """What is missing here, if that is why a session cannot be made or run; None if the model is to blame."""
        ...

    def confirm(self, runtime: Any, session: Any, path: Path) -> None:
        """Refuse a session that computes elsewhere than it was asked to.

        Raises:
            EnvironmentMissing: ONNX Runtime fell back.
        """
        ...

    def remarks(self, session: Any) -> dict[str, str]:
        """What a report should say besides."""
        ...

    def lowering(self, metadata: ArtifactMetadata) -> str:
        """What the reduction steps are here; `metadata` has steps that are nodes of the op set."""
        ...


class CpuTarget:
    """The CPU.

    Args:
        native: Register the custom-op library where there is one.
    """

    backend = "onnxruntime"
    provider = CPU
    device = "cpu"
    device_id = 0

    def __init__(self, *, native: bool = True) -> None:
        self.library = ort_library() if native else None

    def prepare(self, runtime: Any, path: Path) -> None:
        """Nothing."""

    def configure(self, options: Any) -> None:
        """Nothing."""

    def providers(self, source: Path | bytes) -> list[tuple[str, dict[str, str]]]:
        """The CPU's."""
        return [(CPU, {})]

    def cause(self, runtime: Any, error: Exception) -> EnvironmentMissing | None:
        """Nothing can be missing."""

    def confirm(self, runtime: Any, session: Any, path: Path) -> None:
        """There is nothing to fall back to."""

    def remarks(self, session: Any) -> dict[str, str]:
        """None."""
        return {}

    def lowering(self, metadata: ArtifactMetadata) -> str:
        """The library's kernels, or the function bodies."""
        if self.library is None:
            return "portable (function bodies)"
        # A registered kernel claims its node before ONNX Runtime looks at the node's function body.
        return f"native ({self.library.path})"


def make_session(source: Path | bytes, *, path: Path, threads: int | None = None, target: Target | None = None) -> Any:
    """A session without warnings on stderr, without spinning threads, and without falling back to another provider.

    Idle sessions that spin would take the cores from whichever session is measured next.

    Args:
        source: A file, or a serialised model.
        path: Path for messages.
        threads: Intra-op threads; None leaves ONNX Runtime's default.
        target: Where it computes; None is the CPU, with the native library where there is one.

    Raises:
        ArtifactError: ONNX Runtime refuses the model.
        EnvironmentMissing: The native library does not load, or the target cannot be had here.
    """
    target = CpuTarget() if target is None else target
    runtime = require("onnxruntime", purpose=f"running {path}")
    if isinstance(source, Path):
        check_there(source)
    refuse_what_crashes(runtime, source, path)
    target.prepare(runtime, path)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    target.configure(options)
    if target.library is not None:
        _register(options, target.library)
    try:
        with foreign_run(path):
            try:
                session = _open(runtime, source, options, target)
            except Exception as error:
                if "float8" not in str(error):
                    raise
                # It fuses float8 pairs into products that it has for integers only (seen in 1.31.1)
                options.add_session_config_entry("session.disable_quant_qdq", "1")
                session = _open(runtime, source, options, target)
    except TmdeployError:
        raise
    except Exception as error:
        missing = target.cause(runtime, error)
        if missing is not None:
            raise missing from error
        text = first_line(error)
        if "Protobuf parsing failed" in text or "INVALID_PROTOBUF" in text:
            raise ArtifactError(NOT_ONNX, path=path, remedy=AGAIN) from error
        newest = re.search(r"domain ai\.onnx is till opset (\d+)", str(error))
        if newest is not None:
            raise _too_new(runtime, source, path, newest[1]) from error
        raise ArtifactError(f"ONNX Runtime cannot load it ({text})", path=path) from error
    session.disable_fallback()
    target.confirm(runtime, session, path)
    return session


def _too_new(runtime: Any, source: Path | bytes, path: Path, newest: str) -> ArtifactError:
    opset = standard_opset(read_proto(source))
    return ArtifactError(
        f"is of opset {opset}, and ONNX Runtime {runtime.__version__} reads up to opset {newest}",
        path=path,
        remedy=f"Install ONNX Runtime {oldest_runtime(opset)} or later, or export it with --opset 20",
    )


def _open(runtime: Any, source: Path | bytes, options: Any, target: Target) -> Any:
    given = source if isinstance(source, bytes) else str(source)
    session = _strict_session(runtime.InferenceSession)
    return session(given, options, providers=target.providers(source), enable_fallback=0)


@functools.cache
def _strict_session(base: Any) -> Any:
    """Sessions that fail where they cannot be made, silently.

    Old ones (1.20) do not know `enable_fallback`: they print to stdout that they fall back to another provider, and do.
    """

    class StrictSession(base):  # type: ignore[misc]
        @property
        def _enable_fallback(self) -> bool:
            return False

        @_enable_fallback.setter
        def _enable_fallback(self, value: bool) -> None:
            """The base class sets it to what it thinks best."""

    return StrictSession


def run_session(
    session: Any,
    names: Sequence[str],
    feeds: Mapping[str, NDArray[Any]],
    *,
    path: Path,
    cause: Callable[[Any, Exception], TmdeployError | None] = lambda *_: None,
) -> list[NDArray[Any]]:
    """Run: every run of a session goes through here.

    Args:
        session: From `make_session`.
        names: Names of the outputs.
        feeds: Inputs by name.
        path: Path for messages.
        cause: See `Target.cause`.

    Raises:
        ArtifactError: ONNX Runtime failed.
        EnvironmentMissing: A library that the provider loads on first use is not there.
        TimeLimitReached: It took too long.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()

    def stop() -> None:
        options.terminate = True  # it looks between nodes, those of a loop's body among them

    with running(path, cause), foreign_run(path, stop):
        return session.run(list(names), dict(feeds), options)  # type: ignore[no-any-return]


@contextlib.contextmanager
def running(path: Path, cause: Callable[[Any, Exception], TmdeployError | None] = lambda *_: None) -> Iterator[None]:
    """Turn what ONNX Runtime raises while it runs into one line; `run_session` has it, bindings need it."""
    import onnxruntime

    try:
        yield
    except TmdeployError:
        raise
    except Exception as error:
        missing = cause(onnxruntime, error)
        if missing is not None:
            raise missing from error
        text = telling(str(error)) or first_line(error)
        raise ArtifactError(f"ONNX Runtime failed while running it ({text})", path=path) from error


def _register(options: Any, library: NativeLibrary) -> None:
    try:
        options.register_custom_ops_library(str(library.path))
    except Exception as error:
        raise EnvironmentMissing(
            f"the native library {library.path} does not load ({first_line(error)})",
            remedy="Build it again with tmdeploy plugins build, or run with TMDEPLOY_NATIVE=0",
        ) from error
