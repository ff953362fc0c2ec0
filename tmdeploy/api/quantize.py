"""`tmdeploy.quantize`: ONNX file to a quantised one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tmdeploy.api.arguments import FilePath, as_tuple
from tmdeploy.card.schedule import as_typed
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    from tmdeploy.report.schemas.quantize import QuantizeReport


def quantize(
    model: FilePath,
    output: FilePath | None = None,
    *,
    scheme: Literal["int8", "fp8"],
    data: FilePath | Sequence[FilePath] = (),
    keep_float: str | Sequence[str] | None = None,
    images: int = 128,
    batch: int = 8,
    calibration: Literal["minmax", "percentile", "entropy"] = "percentile",
    percentile: float = 99.99,
    eval_data: FilePath | Sequence[FilePath] = (),
    eval_images: int = 512,
    max_drop: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = silent,
) -> QuantizeReport:
    """Quantise a model's linear layers, never its planners, and compare it with the original on other images.

        report = tmdeploy.quantize("deit_s.onnx", scheme="int8", data="photos/")

    Args:
        model: An fp32 `.onnx` that tmdeploy exported.
        output: The file to write; None takes the model's name with the suffix `.int8.onnx` or `.fp8.onnx`.
        scheme: `int8` (symmetric) or `fp8` (E4M3FN).
        data: Images to calibrate on, and without `eval_data` to compare on: files, folders, globs.
        keep_float: What stays float: groups (`quantize.choice.GROUPS`), op types, patterns of node names; with a sign
            (`+head`, `-attention`) it widens or narrows the default, `attention`.
        images: Calibration images.
        batch: Images at a time.
        calibration: How the ranges of activations are found.
        percentile: Percentile of magnitudes, for that calibration, 50 to 100.
        eval_data: Images to compare on; none takes those of `data` not calibrated on.
        eval_images: At most this many images to compare on.
        max_drop: Largest drop of accuracy (of agreement without labels), as a share; above it no file is written.
        seed: For the choice of images.
        threads: Threads of ONNX Runtime.
        progress: Called when a stage begins.

    Returns:
        The report. `report.written` is False where the drop was above `max_drop`.

    Raises:
        UsageError: An option that cannot be meant.
        ArtifactError: The model cannot be read or quantised, or the output cannot be written.
        DataError: Images cannot be used, or there are too few.
        ExportError: The result does not run, or is not finite.
    """
    from tmdeploy.graph.keep import parse_keep
    from tmdeploy.quantize.choice import DEFAULT_KEEP
    from tmdeploy.quantize.request import QuantizeRequest
    from tmdeploy.quantize.run import quantize as run

    request = QuantizeRequest(
        model=Path(model),
        output=quantized_path(model, output, scheme),
        scheme=scheme,
        data=as_tuple(data),
        keep_float=parse_keep(None if keep_float is None else as_typed(keep_float), DEFAULT_KEEP, "--keep-float"),
        images=images,
        batch=batch,
        calibration=calibration,
        percentile=percentile,
        eval_data=as_tuple(eval_data),
        eval_images=eval_images,
        max_drop=max_drop,
        seed=seed,
        threads=threads,
    )
    return run(request, progress)


def quantized_path(model: FilePath, output: FilePath | None, scheme: str) -> Path:
    """Where the file goes if nobody says."""
    return Path(model).with_suffix(f".{scheme}.onnx") if output is None else Path(output)
