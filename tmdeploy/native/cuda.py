"""The CUDA compiler and the GPU architectures to compile for."""

from __future__ import annotations

import os
import re
import shutil

from tmdeploy.errors import EnvironmentMissing, UsageError

NVCC_VARIABLE = "CUDACXX"
_PLACE = "/usr/local/cuda/bin"


def find_nvcc() -> str:
    """Path of nvcc: named by CUDACXX, on PATH, or where the CUDA toolkit is installed.

    Raises:
        EnvironmentMissing: There is none, or CUDACXX names none.
    """
    named = os.environ.get(NVCC_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise EnvironmentMissing(f"{NVCC_VARIABLE} names {named}, which is no program", remedy="Correct it")
        return found
    found = shutil.which("nvcc") or shutil.which("nvcc", path=_PLACE)
    if found is None:
        raise EnvironmentMissing(
            "building CUDA code needs nvcc", remedy=f"Install the CUDA toolkit, or name its nvcc in {NVCC_VARIABLE}"
        )
    return found


def cuda_options(architectures: str | None) -> dict[str, str]:
    """CMake's options for CUDA code.

    Args:
        architectures: Compute capabilities without the dot, "75,80,90"; None compiles for all that are supported. The
            oldest is kept as PTX too, which newer GPUs compile when they load it.

    Raises:
        UsageError: The list is malformed.
        EnvironmentMissing: No nvcc.
    """
    chosen = {} if architectures is None else {"CMAKE_CUDA_ARCHITECTURES": _cmake_list(architectures)}
    return {"CMAKE_CUDA_COMPILER": find_nvcc(), **chosen}


def _cmake_list(architectures: str) -> str:
    names = [name.strip() for name in architectures.split(",")]
    wrong = next((name for name in names if re.fullmatch(r"[1-9]\d{1,2}", name, re.ASCII) is None), None)
    if wrong is not None:
        raise UsageError(
            f"--cuda-arch: '{wrong}' is no compute capability", remedy="Write them without dots, as in 75,80,90"
        )
    oldest, *others = sorted({int(name) for name in names})
    return ";".join([str(oldest), *(f"{other}-real" for other in others)])
