"""Arrays on the device, seen through the protocol that torch, CuPy and Numba share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tmdeploy.errors import DataError
from tmdeploy.tensorrt.cuda.device_array import DeviceArray, device_array, on_device


def _foreign(**changes: Any) -> SimpleNamespace:
    interface = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "strides": None, "version": 2, **changes}
    return SimpleNamespace(__cuda_array_interface__=interface)


def test_what_lies_where():
    assert on_device(_foreign())
    assert not on_device(np.zeros(3))
    assert not on_device(torch.zeros(3))


def test_it_is_seen_and_kept_alive():
    value = _foreign(stream=7, version=3)
    array = device_array(value)
    assert array == DeviceArray(4096, (2, 3), np.dtype(np.float32), 7)
    assert array.owner is value
    assert array.elements == 6


def test_what_we_give_out_can_be_taken_in_again():
    array = DeviceArray(4096, (2, 5), np.dtype(np.float16), 9)
    assert device_array(array) == array
    assert array.__cuda_array_interface__["typestr"] == "<f2"


@pytest.mark.parametrize("strides", [(12, 4), None])
def test_contiguous_strides_may_be_spelt_out(strides: tuple[int, ...] | None):
    assert device_array(_foreign(strides=strides)).shape == (2, 3)


def test_the_stride_of_a_single_row_does_not_matter():
    assert device_array(_foreign(shape=(1, 3), strides=(999, 4))).shape == (1, 3)


@pytest.mark.parametrize(("changes", "message"), [({"strides": (4, 8)}, "contiguous"), ({"mask": object()}, "masked")])
def test_what_cannot_be_taken(changes: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        device_array(_foreign(**changes))


def test_a_host_array_is_refused():
    with pytest.raises(DataError, match="no array on a GPU"):
        device_array(torch.zeros(3))


def test_a_type_without_a_name_is_refused():
    class Bfloat16:
        dtype = "torch.bfloat16"

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise TypeError("Got unsupported ScalarType BFloat16")

    with pytest.raises(DataError, match="bfloat16"):
        device_array(Bfloat16())
