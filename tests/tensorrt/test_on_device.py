"""Images that lie on the GPU, logits that stay there. On stand-ins (fakes.py), whose device memory is memory."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.tensorrt.fake_engine import fake_engine, use_fakes
from tests.tensorrt.fakes import FakeCuda
from tmdeploy.backends import open_runner
from tmdeploy.backends.tensorrt import TensorrtRunner
from tmdeploy.errors import DataError, UsageError
from tmdeploy.tensorrt.cuda.device_array import DeviceArray

CALLERS = 4242


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def runner(cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorrtRunner:
    use_fakes(monkeypatch, cuda)
    opened = open_runner(fake_engine(tmp_path))
    assert isinstance(opened, TensorrtRunner)
    return opened


def _put(cuda: FakeCuda, values: np.ndarray) -> DeviceArray:
    _, address = cuda.cudaMalloc(values.nbytes)
    ctypes.memmove(address, values.ctypes.data, values.nbytes)
    return DeviceArray(address, values.shape, values.dtype)


def _read(array: DeviceArray) -> np.ndarray:
    size = array.elements * array.dtype.itemsize
    raw = (ctypes.c_uint8 * size).from_address(array.address)
    return np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)


def _images(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 4, 4), np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_same_logits_as_through_the_host(count: int, runner: TensorrtRunner, cuda: FakeCuda):
    images = _images(count)
    for _ in range(4):  # enqueued, captured and launched, launched
        logits = runner.infer_on_device(_put(cuda, images))
        assert logits.shape == (count, 2)
        np.testing.assert_array_equal(_read(logits), runner.infer(images))


def test_nothing_passes_through_the_host_and_nothing_is_waited_for(runner: TensorrtRunner, cuda: FakeCuda):
    runner.infer(_images(2))
    cuda.log.clear()
    cuda.copies.clear()
    runner.infer_on_device(_put(cuda, _images(2)), stream=CALLERS)
    assert "sync" not in cuda.log
    assert cuda.copies == [cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice]


def test_streams_wait_for_each_other_in_order(runner: TensorrtRunner, cuda: FakeCuda):
    """Ours for the images, the caller's for the logits."""
    logits = runner.infer_on_device(_put(cuda, _images(2)), stream=CALLERS)
    waits = [entry for entry in cuda.log if "waits" in entry]
    assert waits == [f"77 waits for {CALLERS}", f"{CALLERS} waits for 77"]
    steps = [entry for entry in cuda.log if "waits" in entry or entry in {"copy on the device", "enqueue"}]
    assert steps == [waits[0], "copy on the device", "enqueue", waits[1]]
    assert logits.stream == CALLERS


def test_torchs_default_stream_is_the_legacy_one(runner: TensorrtRunner, cuda: FakeCuda):
    """Its number is 0 in torch; the protocol of device arrays wants 1."""
    assert runner.infer_on_device(_put(cuda, _images(1)), stream=0).stream == 1


def test_padding_is_cleared(runner: TensorrtRunner, cuda: FakeCuda):
    """Three images are run as four: what the fourth was before must not matter, not even as NaN."""
    runner.infer(np.full((4, 3, 4, 4), np.nan, np.float32))
    runner.infer_on_device(_put(cuda, _images(3)))
    staged = runner._session.staged
    assert staged is not None
    buffer = runner._session._buffers["images"]
    padding = (ctypes.c_float * 48).from_address(buffer.device + 3 * 48 * 4)
    assert staged.shape[0] == 4
    assert list(padding) == [0.0] * 48


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3, 5, 5), np.float32), r"takes float \[-1, 3, 4, 4\], was given float32 \[1, 3, 5, 5\]"),
        (np.zeros((1, 3, 4, 4), np.float16), "takes float32 images on the GPU, not float16"),
        (np.zeros((17, 3, 4, 4), np.float32), "takes at most 16 images"),
    ],
)
def test_what_does_not_fit_is_refused(values: np.ndarray, message: str, runner: TensorrtRunner, cuda: FakeCuda):
    with pytest.raises(DataError, match=message):
        runner.infer_on_device(_put(cuda, values))


def test_an_array_on_the_host_is_refused(runner: TensorrtRunner):
    with pytest.raises(DataError, match="no array on a GPU"):
        runner.infer_on_device(_images(1))


def test_a_fixed_schedule_stays(runner: TensorrtRunner, cuda: FakeCuda):
    with pytest.raises(UsageError, match="fixed schedule"):
        runner.infer_on_device(_put(cuda, _images(1)), [1, 2])
