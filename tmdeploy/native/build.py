"""Building the native libraries with CMake."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tmdeploy.errors import ArtifactError, EnvironmentMissing, TmdeployError
from tmdeploy.native.cuda import cuda_options
from tmdeploy.native.headers import find_ort_headers, missing_headers
from tmdeploy.native.library import ORT_LIBRARY, cache_folder
from tmdeploy.native.trust import checksum_path, make_private_folder, write_checksum
from tmdeploy.system.child import last_words, run_python
from tmdeploy.system.files import atomic_path
from tmdeploy.system.progress import Progress, silent

_SYMBOL = "import ctypes, sys; getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])"


class BuildError(TmdeployError):
    """CMake or the compiler failed."""


def plugin_sources() -> Path:
    """The folder of the CMake project.

    Raises:
        EnvironmentMissing: tmdeploy was installed without it.
    """
    folder = Path(__file__).resolve().parents[2] / "plugins"
    if not (folder / "CMakeLists.txt").is_file():
        raise EnvironmentMissing(
            "the plugins' sources are not part of this installation",
            remedy="Run the command from a checkout of the repository (pip install -e .)",
        )
    return folder


def build_ort(
    output: Path | None = None,
    *,
    cuda: bool = False,
    architectures: str | None = None,
    headers: Path | None = None,
    problem: Callable[[Path], str | None] | None = None,
    progress: Progress = silent,
) -> Path:
    """Build the custom-op library for ONNX Runtime, try it, and put it in place.

    Args:
        output: Folder for it; None takes the one where tmdeploy finds it by itself.
        cuda: Also build kernels for the CUDA provider.
        architectures: With `cuda`, compute capabilities without the dot, "75,80,90"; None compiles for all supported.
        headers: Folder of ONNX Runtime's headers; None searches for it.
        problem: Tries the library, see `build_library`; None loads it into ONNX Runtime.
        progress: Called with a short description.

    Returns:
        The library.

    Raises:
        UsageError: No such list of architectures.
        EnvironmentMissing: No CMake, compiler or headers, or no nvcc where it is wanted.
        BuildError: It does not compile or does not load.
        ArtifactError: The folder is not writable.
    """
    options = {"TMDEPLOY_BUILD_ORT": "ON"}
    if cuda:
        options |= {"TMDEPLOY_BUILD_CUDA": "ON", **cuda_options(architectures)}
    headers = headers or find_ort_headers()
    if headers is None:
        raise missing_headers()
    options["TMDEPLOY_ORT_INCLUDE"] = str(headers)
    library = (cache_folder() if output is None else output) / ORT_LIBRARY
    problem = problem or load_problem
    return build_library("tmdeploy_ort", "onnxruntime", library, options, problem=problem, progress=progress)


def build_library(
    target: str,
    part: str,
    library: Path,
    options: dict[str, str],
    *,
    problem: Callable[[Path], str | None],
    progress: Progress,
) -> Path:
    """Build a library elsewhere, try it, and only then put it in place.

    Args:
        target: Target of the CMake project.
        part: Folder of the project that builds it.
        library: Where it goes.
        options: Options for CMake.
        problem: Says why a library does not load, None if it does.
        progress: Called with a short description.

    Returns:
        `library`.

    Raises:
        EnvironmentMissing: No CMake or compiler.
        BuildError: It does not compile or does not load.
        ArtifactError: The folder is not writable.
    """
    _make_folder(library.parent)
    with tempfile.TemporaryDirectory(prefix="tmdeploy-build-") as scratch:
        build(Path(scratch), target, options, progress=progress)
        made = Path(scratch) / part / library.name
        progress("trying the library")
        why = problem(made)
        if why is not None:
            raise BuildError(f"the library was built, but does not load ({why})")
        _install(made, library)
    return library


def build(folder: Path, target: str, options: dict[str, str], *, progress: Progress = silent) -> None:
    """Configure the CMake project in `folder` and build one target.

    Raises:
        EnvironmentMissing: No CMake or compiler.
        BuildError: It does not compile.
    """
    cmake = shutil.which("cmake")
    if cmake is None:
        raise EnvironmentMissing("building native code needs CMake", remedy="Install it with: pip install cmake")
    compiler = find_compiler()
    command = [cmake, "-S", str(plugin_sources()), "-B", str(folder)]
    if not os.environ.get("CXX"):  # CMake reads CXX itself, with any arguments in it
        command.append(f"-DCMAKE_CXX_COMPILER={compiler}")
    if shutil.which("ninja") is not None:
        command += ["-G", "Ninja"]
    progress("configuring")
    _run([*command, *(f"-D{name}={value}" for name, value in options.items())])
    progress(f"compiling {target}")
    _run([cmake, "--build", str(folder), "--target", target, "--parallel", "2"])


def find_compiler() -> str:
    """Path of the C++ compiler: named by CXX, or on PATH.

    Raises:
        EnvironmentMissing: There is none, or CXX names none.
    """
    named = os.environ.get("CXX")
    if named:
        found = shutil.which(shlex.split(named)[0])
        if found is None:
            raise EnvironmentMissing(f"CXX names {named}, which is no program", remedy="Correct it")
        return found
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        raise EnvironmentMissing(
            "building native code needs a C++17 compiler", remedy="Install g++ or clang++, or name one in CXX"
        )
    return found


def symbol_problem(library: Path, symbol: str) -> str | None:
    """Why a library does not load or lacks a function; None if it is fine.

    The library is tried in another process, which may crash. The runtime need not be installed.
    """
    done = run_python(_SYMBOL, str(library.resolve()), symbol, timeout=120)
    return None if done.returncode == 0 else last_words(done)


def load_problem(library: Path) -> str | None:
    """Why ONNX Runtime cannot load the library, None if it can; tried in another process, which may crash."""
    script = "import sys, onnxruntime; onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    done = run_python(script, str(library), timeout=120)
    return None if done.returncode == 0 else last_words(done)


def _make_folder(folder: Path) -> None:
    try:
        make_private_folder(folder)
    except OSError as error:
        raise ArtifactError(
            f"cannot be created ({error.strerror or error})", path=folder, remedy="Choose another place with -o"
        ) from error


def _install(made: Path, library: Path) -> None:
    """Install the library and its checksum as new files, with the owner and mode that loading requires."""
    for path in (checksum_path(library), library):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    with atomic_path(library) as temporary:
        shutil.copyfile(made, temporary)
        temporary.chmod(0o644)
    write_checksum(library)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return
    lines = (done.stdout + done.stderr).splitlines()
    telling = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
    raise BuildError(
        f"{Path(command[0]).name} failed: {telling[0].strip()}",
        remedy="Run it by hand for all of its output: " + " ".join(command),
    )
