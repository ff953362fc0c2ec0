"""Ranges of activations on real images, by ONNX Runtime's calibrators."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.onnxruntime.session import make_session
from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.quantize.request import Calibration
from tmdeploy.system.boundary import foreign_run, library_call
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx

# TensorRT's numbers. With ONNX Runtime's default of 128 bins, its entropy search has one threshold to choose from.
_BINS, _LEVELS = 2048, 128


class _OneBatch:
    """A data reader (onnxruntime.quantization.CalibrationDataReader) with a single batch."""

    def __init__(self, feeds: dict[str, NDArray[Any]]) -> None:
        self._feeds: dict[str, NDArray[Any]] | None = feeds

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        feeds, self._feeds = self._feeds, None
        return feeds


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[NDArray[np.generic]],
    *,
    method: Calibration,
    percentile: float,
    folder: Path,
    path: Path,
    threads: int | None = None,
    progress: Progress = silent,
) -> dict[str, float]:
    """The magnitude that each tensor's range has to reach.

    Batches are collected one by one, so memory holds one batch's tensors, and histograms.

    Args:
        model: As exported. Reduction steps run as everywhere: by native code where there is some, else by the file's
            function bodies.
        tensors: Names of float tensors.
        batches: Inputs of the model, [B, ...].
        method: `minmax`: the largest magnitude seen. `percentile`: what this share of values does not exceed.
            `entropy`: the threshold whose clipped and rounded histogram is nearest to the whole one by KL divergence
            (Migacz, 8-bit Inference with TensorRT, GTC 2017).
        percentile: Used by that method, 50 to 100.
        folder: Folder for temporary files.
        path: Path for messages.
        threads: Threads of ONNX Runtime.
        progress: Called before every batch.

    Raises:
        DataError: No images.
        ArtifactError: ONNX Runtime fails on the model, or a tensor is not finite.
    """
    import onnx

    source = folder / "source.onnx"
    with _calibrating(path):
        onnx.save(model, source)
        calibrator = _calibrator(method, percentile, source, folder / "calibration.onnx")
        calibrator.select_tensors_to_calibrate = lambda inferred: (set(tensors), _value_infos(inferred, tensors))
        calibrator.augment_graph()
    calibrator.infer_session = make_session(folder / "calibration.onnx", path=path, threads=threads)
    name = model.graph.input[0].name
    seen = 0
    for images in batches:
        progress(f"calibrating on images {seen + 1} to {seen + len(images)}")
        seen += len(images)
        with _calibrating(path), foreign_run(path):
            calibrator.collect_data(_OneBatch({name: images}))
    if not seen:
        raise DataError("no images to calibrate on", path=path, remedy="Give JPEG, PNG or similar files")
    progress("computing ranges")
    with _calibrating(path):
        found = calibrator.compute_data()
        ranges = {tensor: float(np.max(np.abs(found[tensor].range_value))) for tensor in tensors}
    wild = [tensor for tensor, largest in ranges.items() if not np.isfinite(largest)]
    if wild:
        raise ArtifactError(
            f"tensor '{wild[0]}' is not finite on the calibration images",
            path=path,
            remedy="Check the model and images",
        )
    return ranges


def _calibrator(method: Calibration, percentile: float, source: Path, augmented: Path) -> Any:
    from onnxruntime.quantization import calibrate as library

    options: dict[str, Any] = {"augmented_model_path": str(augmented), "symmetric": True}
    if method == "minmax":
        return library.MinMaxCalibrater(source, **options)
    if method == "percentile":
        return library.PercentileCalibrater(source, num_bins=_BINS, percentile=percentile, **options)
    return library.EntropyCalibrater(source, num_bins=_BINS, num_quantized_bins=_LEVELS, **options)


def _value_infos(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, onnx.ValueInfoProto]:
    import onnx

    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    float32 = onnx.TensorProto.FLOAT
    return {name: known.get(name) or onnx.helper.make_tensor_value_info(name, float32, None) for name in tensors}


@contextlib.contextmanager
def _calibrating(path: Path) -> Iterator[None]:
    """The calibrators print to stdout, where JSON may go, and let everybody's errors through."""
    with library_call(path, "calibration failed"), contextlib.redirect_stdout(io.StringIO()):
        yield
