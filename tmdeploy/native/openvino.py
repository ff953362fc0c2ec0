"""The extension library for OpenVINO: finding and building it.

It is built for one version of OpenVINO and loads in that version only (the runtime's file name carries the version), so
it is kept apart by version and no wheel of tmdeploy can bring it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.lazy import require
from tmdeploy.native.build import build_library
from tmdeploy.native.library import NativeLibrary, cache_folder, first_library
from tmdeploy.system.child import last_words, run_python
from tmdeploy.system.machine import package_version
from tmdeploy.system.progress import Progress, silent

OPENVINO_LIBRARY = "libtmdeploy_openvino.dylib" if sys.platform == "darwin" else "libtmdeploy_openvino.so"
OPENVINO_VARIABLE = "TMDEPLOY_OPENVINO_LIBRARY"
BUILD_COMMAND = "tmdeploy plugins build --openvino"


def openvino_libraries() -> tuple[NativeLibrary, ...]:
    """The places to search, in order."""
    places = []
    named = os.environ.get(OPENVINO_VARIABLE)
    if named:
        places.append(NativeLibrary(Path(named), f"environment variable {OPENVINO_VARIABLE}", asked_for=True))
    if package_version("openvino") is not None:
        places.append(NativeLibrary(built_folder() / OPENVINO_LIBRARY, f"built by {BUILD_COMMAND}"))
    return tuple(places)


def openvino_library() -> NativeLibrary | None:
    """The extension to load; None where there is none, or where native code is refused.

    Raises:
        EnvironmentMissing: The environment names a file that is not there, or the file is refused (`native/trust.py`).
    """
    return first_library(openvino_libraries(), variable=OPENVINO_VARIABLE, command=BUILD_COMMAND)


def built_folder() -> Path:
    """The folder for a library built for the installed OpenVINO."""
    return cache_folder() / f"openvino-{package_version('openvino')}"


def cmake_folder() -> Path:
    """The folder of OpenVINOConfig.cmake, which is part of the wheel, as are the headers.

    Raises:
        EnvironmentMissing: OpenVINO is not installed, or without them.
    """
    package = require("openvino", purpose="building its extension")
    folder = Path(str(package.__file__)).parent / "cmake"
    if not (folder / "OpenVINOConfig.cmake").is_file():
        raise EnvironmentMissing(
            f"the installed OpenVINO has no {folder / 'OpenVINOConfig.cmake'}",
            remedy="Install the wheel, which brings headers and CMake files: pip install openvino",
        )
    return folder


def build_options() -> dict[str, str]:
    """Options for CMake.

    Raises:
        EnvironmentMissing: OpenVINO is not installed, or without its CMake files.
    """
    return {"TMDEPLOY_BUILD_OPENVINO": "ON", "TMDEPLOY_BUILD_ORT": "OFF", "OpenVINO_DIR": str(cmake_folder())}


def build_openvino(output: Path | None = None, *, progress: Progress = silent) -> Path:
    """Build the extension library for the installed OpenVINO, try it, and put it in place.

    Args:
        output: Folder for it; None takes the one where tmdeploy finds it by itself.
        progress: Called with a short description.

    Returns:
        The library.

    Raises:
        EnvironmentMissing: No OpenVINO, CMake or compiler.
        BuildError: It does not compile or does not load.
        ArtifactError: The folder is not writable.
    """
    options = build_options()
    target = (built_folder() if output is None else output) / OPENVINO_LIBRARY
    return build_library("tmdeploy_openvino", "openvino", target, options, problem=openvino_problem, progress=progress)


def openvino_problem(library: Path) -> str | None:
    """Why OpenVINO cannot load the library, None if it can; tried in another process, which may crash."""
    script = "import sys, openvino; openvino.Core().add_extension(sys.argv[1])"
    done = run_python(script, str(library), timeout=120)
    if done.returncode == 0:
        return None
    lines = (line.strip() for line in done.stderr.splitlines())
    return next((line for line in lines if "Cannot load library" in line), None) or last_words(done)
