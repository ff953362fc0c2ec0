"""Small models exported for engines, and files that only begin like engines, for the checks before TensorRT."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

import tmdeploy
from tests.export.exporting import save_tiny
from tests.vits import tiny_vit
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.lazy import install_command
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.record.profiles import BatchRange
from tmdeploy.tensorrt.record.sidecar import EngineRecord, Tensor, write_sidecar
from tmdeploy.tensorrt.run.compatibility import host_platform
from tmdeploy.tensorrt.sdk.flavor import Flavor

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason=f"NO ENGINE IS BUILT: tensorrt_rtx is not installed ({install_command('rtx')})",
)


def export_tiny(method: str, folder: Path, **request: object) -> Path:
    """Two blocks, 64 patch tokens, a reduction step in each."""
    amount = {"r": 8} if method == "tome" else {}
    layers = None if method in {"tome", "none"} else [0, 1]
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(depth=2), method, layers=layers, **amount), folder)
    output = folder / f"{method}.onnx"
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False, **request))
    return output


def rtx_bytes(payload: int = 200, version: tuple[int, ...] = (1, 7, 1, 116)) -> bytes:
    """A file that begins like one of TensorRT-RTX."""
    return struct.pack("<4sIQQ4B", b"vtrt", 0, 2, 28 + payload, *version) + bytes(payload)


def full_bytes() -> bytes:
    """A file that begins like one of full TensorRT."""
    return b"ftrt" + bytes(300)


def engine_file(folder: Path, content: bytes, **changes: object) -> Path:
    """An engine file and the sidecar that belongs to it."""
    path = folder / "tiny.plan"
    path.write_bytes(content)
    rtx = content.startswith(b"vtrt")
    fields: dict[str, object] = {
        "tool_version": tmdeploy.__version__,
        "flavor": Flavor.RTX if rtx else Flavor.TENSORRT,
        "tensorrt_version": "1.7.1.116" if rtx else "11.4.0.106",
        "platform": host_platform(),
        "gpu": None if rtx else "NVIDIA L4",
        "sm": None if rtx else "sm_89",
        "bytes": len(content),
        "sha256": sha256(path),
        "source_name": "tiny.onnx",
        "source_sha256": "0" * 64,
        "precision": "fp16",
        "lowering": "portable",
        "profiles": (BatchRange(min=1, opt=2, max=4),),
        "inputs": (Tensor(name="images", type="float", shape=(-1, 3, 64, 64)),),
        "outputs": (Tensor(name="logits", type="float", shape=(-1, 10)),),
        "layers": 100,
        "build_seconds": 1.0,
        "command": "tmdeploy build tiny.onnx -o tiny.plan",
    }
    write_sidecar(path, EngineRecord.model_validate({**fields, **changes}))
    return path
