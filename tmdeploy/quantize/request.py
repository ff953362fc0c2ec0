"""The request of a quantisation and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tmdeploy.backends.base import check_threads
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.quantize.choice import DEFAULT_KEEP
from tmdeploy.system.files import check_outputs

Scheme = Literal["int8", "fp8"]
Calibration = Literal["minmax", "percentile", "entropy"]

# DequantizeLinear has scales per channel from 13 on, and float8 from 19 on.
MIN_OPSET = {"int8": 13, "fp8": 19}


@dataclass(frozen=True)
class QuantizeRequest:
    """Arguments of `tmdeploy.quantize`, which says what they mean."""

    model: Path
    output: Path
    scheme: Scheme
    data: Sequence[str | Path]
    keep_float: tuple[str, ...] = DEFAULT_KEEP
    images: int = 128
    batch: int = 8
    calibration: Calibration = "percentile"
    percentile: float = 99.99
    eval_data: Sequence[str | Path] = ()
    eval_images: int = 512
    max_drop: float | None = None
    seed: int = 0
    threads: int | None = None


def check_request(request: QuantizeRequest) -> None:
    """Refuse what cannot be meant before anything is read.

    Raises:
        UsageError: An option out of its range, or an output that is the model itself.
        ArtifactError: The output cannot be written.
    """
    if request.model.suffix != ".onnx":
        raise UsageError(
            f"{request.model}: only an .onnx is quantised", remedy="Export a checkpoint first: tmdeploy export"
        )
    check_threads(request.threads)
    if not request.data:
        raise UsageError("there is nothing to calibrate on", remedy="Name images with --data")
    if not 50.0 <= request.percentile <= 100.0:
        raise UsageError(f"--percentile {request.percentile:g}: from 50 to 100")
    if request.max_drop is not None and not 0.0 <= request.max_drop <= 1.0:
        raise UsageError(f"--max-drop {request.max_drop:g}: a share, from 0 to 1")
    if request.output.suffix != ".onnx":
        raise UsageError(f"{request.output}: a quantised model ends in .onnx", remedy="Name it so with -o")
    check_outputs({"-o": request.output}, [request.model])


def check_source(request: QuantizeRequest, metadata: ArtifactMetadata | None, opset: int) -> ArtifactMetadata:
    """The model's metadata, if it can be quantised.

    Raises:
        ArtifactError: It has no metadata, is quantised or fp16 already, or its opset is too old.
    """
    if metadata is None:
        raise ArtifactError(
            "carries no tmdeploy metadata, so nothing says which nodes are planners and how images are prepared",
            path=request.model,
            remedy="Export it with tmdeploy export",
        )
    if metadata.precision in {"int8", "fp8"}:
        raise ArtifactError(
            f"is quantised to {metadata.precision} already",
            path=request.model,
            remedy="Quantise the fp32 file that it was made from",
        )
    if metadata.precision != "fp32":
        raise ArtifactError(
            f"is {metadata.precision}, and only an fp32 file is quantised",
            path=request.model,
            remedy="Export it with --precision fp32; tmdeploy build --precision fp16 converts what is not quantised",
        )
    if opset < MIN_OPSET[request.scheme]:
        raise ArtifactError(
            f"has opset {opset}, and {request.scheme} needs {MIN_OPSET[request.scheme]} or later",
            path=request.model,
            remedy=f"Export it with --opset {max(18, MIN_OPSET[request.scheme])}",
        )
    return metadata
