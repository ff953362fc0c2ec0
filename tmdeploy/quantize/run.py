"""`quantize`: choose, calibrate, insert, check, compare, and only then give the file its name."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from numpy.typing import NDArray

import tmdeploy
from tmdeploy.backends.onnxruntime.runner import open_runner
from tmdeploy.backends.pairing import image_labels
from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, QuantizationRecord, dump
from tmdeploy.data.images import ImageReader, nothing_readable
from tmdeploy.data.samples import ImageFiles
from tmdeploy.errors import ExportError
from tmdeploy.graph.base import Pass, run_pass, run_passes
from tmdeploy.graph.insert_int8 import InsertInt8
from tmdeploy.graph.name_nodes import NameNodes
from tmdeploy.graph.onnx_file import check_bodies, read_onnx, standard_opset
from tmdeploy.graph.to_float8 import ToFloat8
from tmdeploy.quantize.calibrate import calibrate
from tmdeploy.quantize.choice import Choice, choose
from tmdeploy.quantize.request import QuantizeRequest, check_request, check_source
from tmdeploy.quantize.split import Split, split_images
from tmdeploy.report.schemas.quantize import Drop, KeptNode, QuantizeReport, StepAgreement
from tmdeploy.system.boundary import library_call
from tmdeploy.system.ending import temporary_folder
from tmdeploy.system.files import atomic_path, sha256
from tmdeploy.system.progress import Progress, silent
from tmdeploy.validate import ValidationReport, validate

_NOT_AS_EXPORTED = "Its graph is not as tmdeploy exports it: export it again"


def quantize(request: QuantizeRequest, progress: Progress = silent) -> QuantizeReport:
    """Quantise a file, and compare it with the original on images that it was not calibrated on.

    Args:
        request: What to do.
        progress: Called with a short description when a stage begins.

    Returns:
        The report; where its drop is above `max_drop`, no file was written.

    Raises:
        UsageError: An option that cannot be meant.
        ArtifactError: The model cannot be read or quantised, or the output cannot be written.
        DataError: Images cannot be used, or there are too few.
        ExportError: The result does not run, or is not finite.
    """
    check_request(request)
    progress("reading the model")
    model, found = read_onnx(request.model)
    check_bodies(model, request.model)
    metadata = check_source(request, found, standard_opset(model))
    with library_call(request.model, "cannot be quantised", remedy=_NOT_AS_EXPORTED):
        onnx.checker.check_model(model)
        model, _ = run_pass(model, NameNodes())
        choice = choose(model, metadata.steps, request.keep_float)
    images = split_images(
        request.data,
        request.eval_data,
        images=request.images,
        eval_images=request.eval_images,
        seed=request.seed,
    )
    with temporary_folder("tmdeploy-quantize-") as folder:
        start = perf_counter()
        pictures = _Pictures(images.calibration, metadata, request.batch)
        ranges = calibrate(
            model,
            choice.activations,
            pictures.batches(),
            method=request.calibration,
            percentile=request.percentile,
            folder=folder,
            path=request.model,
            threads=request.threads,
            progress=progress,
        )
        seconds = perf_counter() - start
        progress(f"quantising {len(choice.quantized)} nodes")
        record = _record(request, metadata, choice, pictures)
        made = folder / request.output.name
        with library_call(request.model, "cannot be quantised", remedy=_NOT_AS_EXPORTED):
            onnx.save(_quantized(model, choice, ranges, metadata, record), made)
        comparison = _compare(request, made, images, 1 if not metadata.dynamic_batch else request.batch, progress)
        drop = _drop(comparison, request.max_drop)
        if drop.passed:
            with atomic_path(request.output) as target:
                shutil.copyfile(made, target)
        return QuantizeReport(
            tool_version=tmdeploy.__version__,
            model=str(request.model),
            output=str(request.output),
            written=drop.passed,
            bytes_before=request.model.stat().st_size,
            bytes_after=made.stat().st_size,
            record=record,
            quantized=choice.quantized,
            kept=tuple(KeptNode(node=name, entry=entry) for name, entry in choice.kept),
            planner=choice.planner,
            calibration_skipped=pictures.skipped,
            calibration_seconds=round(seconds, 3),
            steps=_steps(comparison, metadata),
            drop=drop,
            comparison=comparison,
        )


class _Pictures:
    """Calibration images as the model takes them, counted and hashed as they pass."""

    def __init__(self, paths: Sequence[Path], metadata: ArtifactMetadata, batch: int) -> None:
        self._reader = ImageReader(paths, metadata.card.preprocessing, in_graph=metadata.preprocessing_in_graph)
        self._batch = batch if metadata.dynamic_batch else 1
        self._digest = hashlib.sha256()
        self.count = 0

    def batches(self) -> Iterator[NDArray[np.generic]]:
        """Raises DataError where none can be read."""
        for batch in self._reader.batches(self._batch):
            self._digest.update(np.ascontiguousarray(batch.images).tobytes())
            self.count += len(batch.images)
            yield batch.images
        if not self.count:
            raise nothing_readable(self._reader.skipped)

    @property
    def sha256(self) -> str:
        """Of the pixels or normalised values, in order."""
        return self._digest.hexdigest()

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Path and reason."""
        return tuple((str(path), reason) for path, reason in self._reader.skipped)


def _record(
    request: QuantizeRequest, metadata: ArtifactMetadata, choice: Choice, pictures: _Pictures
) -> QuantizationRecord:
    return QuantizationRecord(
        scheme=request.scheme,
        calibration=request.calibration,
        percentile=request.percentile if request.calibration == "percentile" else None,
        images=pictures.count,
        images_sha256=pictures.sha256,
        schedule=metadata.card.reduction.amounts,
        keep_float=request.keep_float,
        quantized=len(choice.quantized),
        kept=len(choice.kept),
        source_name=request.model.name,
        source_sha256=sha256(request.model),
    )


def _quantized(
    model: onnx.ModelProto,
    choice: Choice,
    ranges: dict[str, float],
    metadata: ArtifactMetadata,
    record: QuantizationRecord,
) -> onnx.ModelProto:
    passes: list[Pass[onnx.ModelProto]] = [InsertInt8(choice.quantized, ranges)]
    if record.scheme == "fp8":
        passes.append(ToFloat8(model))
    done, _ = run_passes(model, passes)
    stamped = metadata.model_copy(update={"precision": record.scheme, "quantization": record})
    next(entry for entry in done.metadata_props if entry.key == METADATA_KEY).value = dump(stamped)
    try:
        onnx.checker.check_model(done, full_check=True)
    except Exception as error:
        raise ExportError(f"the quantised graph is not valid ({str(error).strip().splitlines()[0]})") from error
    return done


def _compare(request: QuantizeRequest, made: Path, images: Split, batch: int, progress: Progress) -> ValidationReport:
    with (
        open_runner(request.model, threads=request.threads) as reference,
        open_runner(made, threads=request.threads) as candidate,
    ):
        reader = ImageReader(images.held_out, reference.preprocessing, in_graph=reference.pixels_in)
        labels, said = image_labels(images.known, reference)
        where = ", ".join(map(str, request.eval_data or request.data)) + said
        samples = ImageFiles(reader, f"{where}, not calibrated on", labels)
        found = validate(reference, candidate, samples, batch_sizes=(batch,), progress=progress)
    if not np.isfinite(found.model.logits_error_max):
        raise ExportError("the quantised model's logits are not finite", path=request.output)
    wrong = next((wrong for row in found.realisations for wrong in row.wrong), None)
    if wrong is not None:  # both files have it, so that their comparison does not show it
        raise ExportError(
            f"a reduction op does not compute what it should: {wrong}",
            path=request.model,
            remedy="Export the model again; if it is the native library, build that again: tmdeploy plugins build",
        )
    return found


def _drop(comparison: ValidationReport, limit: float | None) -> Drop:
    if comparison.accuracy is None:
        return Drop(measure="agreement", value=1.0 - comparison.model.top1.share, limit=limit)
    return Drop(measure="accuracy", value=comparison.accuracy.reference - comparison.accuracy.candidate, limit=limit)


def _steps(comparison: ValidationReport, metadata: ArtifactMetadata) -> tuple[StepAgreement, ...]:
    """Agreement step by step, from the first difference of every image: later ones follow from it."""
    first = Counter(row.block for row in comparison.differing)
    agreeing, rows = comparison.images, []
    for step in metadata.steps:
        agreeing -= first[step.block]
        changed = [row.tokens for row in comparison.differing if row.block == step.block]
        rows.append(
            StepAgreement(
                block=step.block,
                agreeing=agreeing,
                images=comparison.images,
                tokens_in=step.tokens_in,
                tokens_changed=sum(changed) / len(changed) if changed else None,
            )
        )
    return tuple(rows)
