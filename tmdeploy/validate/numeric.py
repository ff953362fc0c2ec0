"""Level 1: every op on the same inputs. The candidate's steps are fed the reference's tensors (teacher forcing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import OpensParts, StepTrace
from tmdeploy.card.metadata import ArtifactMetadata, StepRecord
from tmdeploy.errors import ArtifactError
from tmdeploy.graph.base import run_pass
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.system.boundary import library_call


@dataclass(frozen=True)
class StepError:
    """How one step of the candidate differs from the reference's on the reference's inputs.

    Attributes:
        block: 0-based.
        images: Images compared.
        plans_differ: Images whose map or index differs; must be 0.
        x_error: Largest error of the reduced tokens, relative to their largest magnitude.
        size_error: Largest error of the sizes; 0 for methods without.
    """

    block: int
    images: int
    plans_differ: int
    x_error: float
    size_error: float


class TeacherForcing:
    """The steps of an exported file, cut out of its graph by the tensor names in its metadata.

    Args:
        path: The `.onnx`.
        metadata: Its metadata.
        parts: Runs the pieces.

    Raises:
        ArtifactError: A step cannot be cut out.
    """

    def __init__(self, path: Path, metadata: ArtifactMetadata, parts: OpensParts) -> None:
        import onnx.shape_inference

        from tmdeploy.graph.cut_step import CutStep

        self._metadata = metadata
        self.default_amounts = metadata.card.reduction.amounts
        self._parts = []
        model, _ = read_onnx(path)
        with library_call(path, "its steps cannot be cut out"):
            model = onnx.shape_inference.infer_shapes(model)
        for step in metadata.steps:
            cut = CutStep(step, metadata.schedule_input)
            try:
                part, _ = run_pass(model, cut)
                opened = parts.open_part(part.SerializeToString())
            except Exception as error:
                raise ArtifactError(f"the step of block {step.block} cannot be cut out ({error})", path=path) from error
            self._parts.append((step, opened, cut.outputs))

    def compare(self, steps: Sequence[StepTrace], amounts: Sequence[int]) -> list[StepError]:
        """Feed the reference's tensors, compare what comes out.

        Args:
            steps: Steps of a reference trace with tensors.
            amounts: The schedule the reference ran with.
        """
        errors = []
        for (record, part, outputs), step in zip(self._parts, steps, strict=True):
            given = {
                record.signal: step.signal,
                record.metric: step.metric,
                record.x_in: step.x_in,
                # a trace leaves out what is all ones before the first step
                record.size_in: step.size_in if step.size_in is not None else np.ones(step.map.shape, np.float32),
                str(self._metadata.schedule_input): np.asarray(amounts, dtype=np.int64),
                "images": np.zeros((len(step.map), 1, 1, 1), dtype=np.float32),
            }
            feeds = {
                name: value.astype(part.inputs[name], copy=False)
                for name, value in given.items()
                if name in part.inputs and value is not None
            }
            errors.append(step_error(record, step, part.run(outputs, feeds)))
        return errors


def step_error(record: StepRecord, step: StepTrace, got: dict[str, NDArray[np.generic]]) -> StepError:
    """Compare a step's outputs with the reference's, made from the same inputs.

    Args:
        record: Names of the outputs.
        step: The reference's, with tensors.
        got: The candidate's, by name.
    """
    assert step.x_out is not None  # noqa: S101 - the trace was asked for tensors
    images = len(step.map)
    if got[record.map].shape != step.map.shape or got[record.index].shape != step.index.shape:
        return StepError(record.block, images, images, 0.0, 0.0)
    same = (got[record.map] == step.map).all(axis=1) & (got[record.index] == step.index).all(axis=1)
    x_out = got[record.x_out].astype(np.float32)
    scale = float(np.abs(step.x_out).max(initial=0.0)) or 1.0
    x_error = float(np.abs(x_out - step.x_out)[same].max(initial=0.0)) / scale
    size_error = 0.0
    if record.size_out is not None and step.size_out is not None:
        sizes = got[record.size_out].astype(np.float32)
        size_error = float(np.abs(sizes - step.size_out)[same].max(initial=0.0))
    return StepError(record.block, images, int((~same).sum()), x_error, size_error)
