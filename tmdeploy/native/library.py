"""Where the custom-op library for ONNX Runtime is."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tmdeploy
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.trust import checked_library
from tmdeploy.system.cache import user_cache

ORT_LIBRARY = "libtmdeploy_ort.dylib" if sys.platform == "darwin" else "libtmdeploy_ort.so"
LIBRARY_VARIABLE = "TMDEPLOY_ORT_LIBRARY"
REFUSAL_VARIABLE = "TMDEPLOY_NATIVE"
BUILD_COMMAND = "tmdeploy plugins build"
_PACKAGE = Path(__file__).parent
_REASON = "no_library.txt"


@dataclass(frozen=True)
class NativeLibrary:
    """A place where the library may be found.

    Attributes:
        path: The file.
        origin: Why this place is searched.
        asked_for: The user named it, so it must exist and load.
    """

    path: Path
    origin: str
    asked_for: bool = False

    @property
    def exists(self) -> bool:
        """Whether the path exists, even as a broken link: what exists is used or refused, never skipped."""
        return os.path.lexists(self.path)


def ort_libraries() -> tuple[NativeLibrary, ...]:
    """The places to search, in order."""
    places = []
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        places.append(NativeLibrary(Path(named), f"environment variable {LIBRARY_VARIABLE}", asked_for=True))
    places.append(NativeLibrary(packaged_library(_PACKAGE), "the installed package"))
    places.append(NativeLibrary(cache_folder() / ORT_LIBRARY, "built by tmdeploy plugins build"))
    return tuple(places)


def ort_library() -> NativeLibrary | None:
    """The library to register; None where there is none, or where native code is refused.

    Raises:
        EnvironmentMissing: The environment names a file that is not there, or the file is refused (`native/trust.py`).
    """
    return first_library(ort_libraries(), variable=LIBRARY_VARIABLE, command=BUILD_COMMAND)


def packaged_library(native: Path) -> Path:
    """Path of the library inside a wheel's `tmdeploy/native`."""
    return native / "lib" / ORT_LIBRARY


def packaged_reason(native: Path = _PACKAGE) -> Path:
    """The file in which a wheel without the library says why it has none."""
    return native / _REASON


def has_cuda_kernels(library: Path) -> bool:
    """Whether the custom-op library was built with kernels for the CUDA provider: they are registered by its name."""
    if library.stat().st_size == 0:
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"CUDAExecutionProvider\0") >= 0


def first_library(places: Sequence[NativeLibrary], *, variable: str, command: str) -> NativeLibrary | None:
    """The first library that exists; None if there is none or native code is refused.

    Args:
        places: Places to search, in order.
        variable: Environment variable with which the user names one.
        command: The command that builds it.

    Returns:
        The library with its path resolved: exactly the file that was checked.

    Raises:
        EnvironmentMissing: The environment names a file that is not there, or the first one is refused.
    """
    if not native_wanted():
        return None
    for place in places:
        if place.exists:
            return replace(place, path=checked_library(place.path, build=command))
        if place.asked_for:
            raise EnvironmentMissing(
                f"{variable} names {place.path}, which is no file",
                remedy=f"Unset it, or build the library with: {command}",
            )
    return None


def native_wanted() -> bool:
    """Whether native code may run if it exists."""
    return os.environ.get(REFUSAL_VARIABLE) != "0"


def refuse_native() -> None:
    """Run function bodies only, in this process and in those it starts."""
    os.environ[REFUSAL_VARIABLE] = "0"


def cache_folder() -> Path:
    """The user's folder for libraries built here, one per version of tmdeploy."""
    return user_cache() / tmdeploy.__version__
