"""The plugin library for TensorRT: finding and building it.

`tmdeploy build --plugin` takes it; engines that were built with it look for it by its checksum. It links nothing of
TensorRT.
"""

from __future__ import annotations

import os
from pathlib import Path

from tmdeploy.native.build import build_library, symbol_problem
from tmdeploy.native.cuda import cuda_options
from tmdeploy.native.library import NativeLibrary, cache_folder
from tmdeploy.native.tensorrt_headers import find_tensorrt_headers, missing_headers
from tmdeploy.system.progress import Progress, silent

TENSORRT_LIBRARY = "libtmdeploy_tensorrt.so"
TENSORRT_VARIABLE = "TMDEPLOY_TENSORRT_LIBRARY"
BUILD_COMMAND = "tmdeploy plugins build --tensorrt"


def tensorrt_libraries() -> tuple[NativeLibrary, ...]:
    """Where an engine's plugin library may be: as named by the user, or where `build_tensorrt` puts it."""
    named = os.environ.get(TENSORRT_VARIABLE)
    places = [NativeLibrary(Path(named), f"environment variable {TENSORRT_VARIABLE}", asked_for=True)] if named else []
    return (*places, NativeLibrary(cache_folder() / TENSORRT_LIBRARY, f"built by {BUILD_COMMAND}"))


def build_tensorrt(
    output: Path | None = None,
    *,
    architectures: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Build the plugin library, try it, and put it in place. Needs no GPU.

    Args:
        output: Folder for it; None takes the user's folder for what is built.
        architectures: Compute capabilities without the dot, "75,80,90"; None compiles for all that are supported.
        progress: Called with a short description.

    Returns:
        The library.

    Raises:
        UsageError: No such list of architectures.
        EnvironmentMissing: No nvcc, CMake, compiler or headers.
        BuildError: It does not compile or does not load.
        ArtifactError: The folder is not writable.
    """
    options = {"TMDEPLOY_BUILD_TENSORRT": "ON", "TMDEPLOY_BUILD_ORT": "OFF", **cuda_options(architectures)}
    headers = find_tensorrt_headers()
    if headers is None:
        raise missing_headers()
    options["TMDEPLOY_TENSORRT_INCLUDE"] = str(headers)
    target = (cache_folder() if output is None else output) / TENSORRT_LIBRARY
    return build_library("tmdeploy_tensorrt", "tensorrt", target, options, problem=tensorrt_problem, progress=progress)


def tensorrt_problem(library: Path) -> str | None:
    """Why the library cannot be loaded, or is no plugin library; None if all is well. TensorRT is not needed."""
    return symbol_problem(library, "getCreators")
