"""Quantised files as engines of TensorRT-RTX, built on the CPU: do its kernels read 8 bits?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quantize.pictures import quantized, write_pictures
from tests.tensorrt.conftest import Exported
from tests.tensorrt.engines import needs_rtx
from tmdeploy.errors import ExportError, UsageError
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.build.run import build_engine
from tmdeploy.tensorrt.record.profiles import parse_batch
from tmdeploy.tensorrt.record.sidecar import EngineRecord

pytestmark = needs_rtx
LINEAR = 10  # patch embedding, four layers in each of two blocks, head


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data"), 12)


def _build(model: Path, pictures: Path, folder: Path, **changes: object) -> EngineRecord:
    scheme, keep = changes.pop("scheme", "int8"), changes.pop("keep_float", ("attention",))
    made, _ = quantized(model, folder, scheme=scheme, keep_float=keep, data=[pictures])
    profiles = tuple(parse_batch(text) for text in str(changes.pop("batches", "2")).split())
    return build_engine(BuildRequest(made, folder / "tiny.plan", flavor="rtx", profiles=profiles, **changes)).record


@pytest.mark.parametrize(
    ("method", "precision"),
    [("tome", None), ("evit", None), *((method, "fp16") for method in ("none", "tome", "evit", "mstm", "topk"))],
)
def test_every_method(method: str, precision: str | None, exported: Exported, pictures: Path, tmp_path: Path):
    record = _build(exported(method), pictures, tmp_path, precision=precision)
    assert record.precision == ("int8" if precision is None else "int8+fp16")
    assert record.kernels is not None
    assert record.kernels.quantized == LINEAR
    assert record.kernels.fused_attention == (0 if precision is None else 2)
    assert record.model is not None
    assert record.model.quantization is not None
    assert record.model.quantization.quantized == LINEAR


def test_bf16(exported: Exported, pictures: Path, tmp_path: Path):
    record = _build(exported("tome"), pictures, tmp_path, precision="bf16")
    assert record.precision == "int8+bf16"
    assert record.kernels is not None
    assert record.kernels.quantized == LINEAR


def test_any_batch_and_any_schedule(exported: Exported, pictures: Path, tmp_path: Path):
    record = _build(exported("tome"), pictures, tmp_path, precision="fp16", schedule="0:8:20", batches="1:1:2 4:8:16")
    assert record.inputs[0].shape == (-1, 3, 64, 64)
    assert record.inputs[1].shape_input
    assert record.kernels is not None
    assert record.kernels.quantized >= LINEAR


def test_fp8(exported: Exported, pictures: Path, tmp_path: Path):
    record = _build(exported("tome"), pictures, tmp_path, scheme="fp8", precision="fp16", target_sm=("sm_89",))
    assert record.precision == "fp8+fp16"
    assert record.kernels is not None
    assert record.kernels.quantized == LINEAR - 1  # this patch embedding has no fp8 kernel; the digits model's has one
    with pytest.raises(ExportError, match=r"fp8.*A GPU of --target-sm lacks this precision"):
        _build(exported("tome"), pictures, tmp_path, scheme="fp8", target_sm=("sm_86",))


def test_quantised_attention_is_one_kernel(exported: Exported, pictures: Path, tmp_path: Path):
    record = _build(exported("tome"), pictures, tmp_path, precision="fp16", keep_float=("head",))
    assert record.kernels is not None
    assert (record.kernels.fused_attention, record.kernels.quantized) == (2, LINEAR - 1 + 2)


def test_a_quantised_file_can_be_built_in_fp32_but_not_unquantised(exported: Exported, pictures: Path, tmp_path: Path):
    assert _build(exported("none"), pictures, tmp_path, precision="fp32").precision == "int8"
    with pytest.raises(UsageError, match="--precision int8: choose from"):
        _build(exported("none"), pictures, tmp_path, precision="int8")
