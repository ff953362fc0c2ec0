"""Engine files that open on the stand-ins of fakes.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tensorrt.engines import engine_file, rtx_bytes
from tests.tensorrt.fakes import FakeCuda, FakeNvml, FakeTensorrt
from tmdeploy.backends import tensorrt
from tmdeploy.tensorrt.cuda import device
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.record.profiles import BatchRange
from tmdeploy.tensorrt.record.sidecar import Tensor
from tmdeploy.tensorrt.run import timing
from tmdeploy.tensorrt.run.compatibility import Fit, read_engine
from tmdeploy.tensorrt.sdk.flavor import Flavor, Toolkit

GPU = Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)


def fake_engine(folder: Path, name: str = "tiny.plan", *, content: bytes = b"", **changes: object) -> Path:
    """An engine of one input and one output of two classes; for batches up to 2, and from 4 to 16."""
    fields: dict[str, object] = {
        "inputs": (Tensor(name="images", type="float", shape=(-1, 3, 4, 4)),),
        "outputs": (Tensor(name="logits", type="float", shape=(-1, 2)),),
        "profiles": (BatchRange(min=1, opt=1, max=2), BatchRange(min=4, opt=8, max=16)),
    }
    made = engine_file(folder, content or rtx_bytes(), **{**fields, **changes})
    for path in (made, made.with_name(made.name + ".json")):
        path.rename(path.with_name(path.name.replace("tiny.plan", name)))
    return folder / name


def use_fakes(
    monkeypatch: pytest.MonkeyPatch,
    cuda: FakeCuda,
    *,
    steps: int = 0,
    loads: bool = True,
    nvml: FakeNvml | None = None,
    streamable: int = 0,
) -> FakeTensorrt:
    """From here on, engines load and run on the stand-ins, and enqueueing is timed by their clock."""
    module = FakeTensorrt(cuda, steps=steps, loads=loads, streamable=streamable)

    def check_fit(path: Path) -> Fit:
        return Fit(read_engine(path), Toolkit(Flavor.RTX, module, "1.7.1.116"), GPU, None)

    monkeypatch.setattr(device, "cuda_runtime", lambda _: cuda)
    monkeypatch.setattr(tensorrt, "check_fit", check_fit)
    monkeypatch.setattr(timing, "perf_counter", lambda: cuda.now)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", nvml)  # None: not there
    return module
