"""The GPU of this machine, as the CUDA runtime reports it, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.lazy import require


@dataclass(frozen=True)
class Gpu:
    """One device.

    Attributes:
        index: CUDA's number.
        name: Such as `NVIDIA GeForce RTX 4090`.
        compute_capability: Such as (8, 9).
        memory_bytes: Global memory.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int

    @property
    def sm(self) -> str:
        """Such as `sm_89`."""
        return f"sm_{self.compute_capability[0]}{self.compute_capability[1]}"


def cuda_runtime(purpose: str) -> Any:
    """`cuda.bindings.runtime`.

    Raises:
        EnvironmentMissing: cuda-bindings is not installed.
    """
    return require("cuda.bindings.runtime", purpose=purpose)


def find_gpu(purpose: str, index: int = 0) -> Gpu:
    """The device that tmdeploy uses.

    Raises:
        EnvironmentMissing: There is no driver, no device, or no cuda-bindings.
    """
    cudart = cuda_runtime(purpose)
    try:
        status, count = cudart.cudaGetDeviceCount()
    except RuntimeError as error:  # a library that the bindings load is missing
        raise _missing(purpose, str(error)) from None
    if int(status) != 0:
        _, reason = cudart.cudaGetErrorString(status)
        raise _missing(purpose, reason.decode() if isinstance(reason, bytes) else str(reason))
    if index >= count:
        raise _missing(purpose, "the driver finds none" if count == 0 else f"there are {count}, none of number {index}")
    status, properties = cudart.cudaGetDeviceProperties(index)
    if int(status) != 0:
        raise _missing(purpose, "the driver does not describe it")
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(index, name.rstrip("\0"), (properties.major, properties.minor), int(properties.totalGlobalMem))


def gpu_or_none() -> Gpu | None:
    """The first device; None if there is none or cuda-bindings is missing."""
    try:
        return find_gpu("looking for a GPU")
    except EnvironmentMissing:
        return None


def _missing(purpose: str, reason: str) -> EnvironmentMissing:
    return EnvironmentMissing(
        f"{purpose} needs an NVIDIA GPU, and there is none here ({' '.join(reason.split()).rstrip('.')})",
        remedy="Run it on a machine with a GPU and its driver",
    )
