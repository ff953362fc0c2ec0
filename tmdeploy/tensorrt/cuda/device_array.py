"""Arrays on the device, of torch, CuPy, Numba or an engine, through one protocol.

https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html: every such array has `__cuda_array_interface__`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tmdeploy.errors import DataError

LEGACY_STREAM = 1  # cudaStreamLegacy, which synchronises with torch's default stream


@dataclass(frozen=True)
class DeviceArray:
    """A contiguous array on the device; `torch.as_tensor(array, device="cuda")` and `cupy.asarray(array)` share it.

    Attributes:
        address: Device address.
        shape: Shape of the array.
        dtype: Element type.
        stream: CUDA handle of the stream that produces it; None if it is complete, or the producer does not say.
        owner: Object that keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None = None
    owner: object = field(default=None, repr=False, compare=False)

    @property
    def elements(self) -> int:
        """Number of elements."""
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
    """Whether this array is on the device."""
    return interface_of(value) is not None


def interface_of(value: object) -> Mapping[str, Any] | None:
    """Its `__cuda_array_interface__`; None for numpy arrays, and for torch tensors on the host, which have none."""
    found = getattr(value, "__cuda_array_interface__", None)  # torch raises AttributeError for a tensor on the host
    return found if isinstance(found, Mapping) else None


def device_array(value: object) -> DeviceArray:
    """View another library's array.

    Args:
        value: An object with `__cuda_array_interface__`; the result keeps it alive.

    Raises:
        DataError: It is on the host, masked, of a type unknown to numpy (bfloat16), or not contiguous.
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
    """Whether rows follow each other without gaps; strides of dimensions of size 1 do not matter."""
    expected = itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True
