"""Arrays that lie on the device, whoever made them: torch, CuPy, Numba and an engine's outputs, through one protocol.

https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html: every such array has `__cuda_array_interface__`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tmdeploy.errors import DataError

LEGACY_STREAM = 1  # cudaStreamLegacy: what torch's work waits for, and is waited for by, unless it was told otherwise


@dataclass(frozen=True)
class DeviceArray:
    """A contiguous array on the device; `torch.as_tensor(array, device="cuda")` and `cupy.asarray(array)` share it.

    Attributes:
        address: On the device.
        shape: Of the array.
        dtype: Of an element.
        stream: CUDA's handle of the stream whose work makes it; None where that is done, or nobody says.
        owner: What must live as long as the memory is used.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None = None
    owner: object = field(default=None, repr=False, compare=False)

    @property
    def elements(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream,
            "version": 3,
        }


def on_device(value: object) -> bool:
    """Whether this array lies on the device."""
    return interface_of(value) is not None


def interface_of(value: object) -> Mapping[str, Any] | None:
    """Its `__cuda_array_interface__`; None for numpy arrays, and for torch tensors on the host, which have none."""
    found = getattr(value, "__cuda_array_interface__", None)  # torch raises AttributeError for a tensor on the host
    return found if isinstance(found, Mapping) else None


def device_array(value: object) -> DeviceArray:
    """See an array of somebody else's.

    Args:
        value: Has `__cuda_array_interface__`; kept alive by the result.

    Raises:
        DataError: It lies on the host, is masked, has a type that numpy has not (bfloat16), or is not contiguous.
    """
    try:
        interface = interface_of(value)
    except TypeError as error:  # torch: a type that the protocol has no name for
        raise DataError(f"an array of {getattr(value, 'dtype', 'this type')} cannot be passed ({error})") from None
    if interface is None:
        raise DataError(
            "is no array on a GPU", remedy="Pass a torch tensor with device='cuda', or use infer() for numpy"
        )
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(side) for side in interface["shape"])
    strides = interface.get("strides")
    if interface.get("mask") is not None:
        raise DataError("a masked array cannot be passed to an engine")
    if strides is not None and not _contiguous(shape, strides, dtype.itemsize):
        raise DataError("an array on the GPU must be contiguous", remedy="Call .contiguous() on it")
    stream = interface.get("stream")
    return DeviceArray(int(interface["data"][0]), shape, dtype, None if stream is None else int(stream), value)


def _contiguous(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Row after row without gaps; what stands beside a side of one does not matter."""
    expected = itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True
