"""The native library on models of a real size: DeiT-S, every method."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.deit_s import make_checkpoint
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.images import random_images
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.native import library

IMAGES = random_images(3, Preprocessing(), in_graph=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that make attention and similarity uneven."""
    return make_checkpoint(tmp_path_factory.mktemp("deit") / "deit_s.pth")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tome", "evit", "topk", "mstm"])
def test_one_file_with_the_library_and_without(
    method: str, checkpoint: Path, ort_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(ort_built))
    monkeypatch.delenv(library.REFUSAL_VARIABLE, raising=False)
    path, portable = tmp_path / "custom.onnx", tmp_path / "portable.onnx"
    for output, lowering in ((path, "custom"), (portable, "portable")):
        export_checkpoint(
            ExportRequest(checkpoint=checkpoint, output=output, method=method, lowering=lowering, verify=False)
        )
    native, *others = (
        OnnxRuntimeRunner(path),
        OnnxRuntimeRunner(path, native=False),
        OnnxRuntimeRunner(portable),
    )
    assert native.facts.lowering.startswith("native (")
    for images in (IMAGES[:1], IMAGES):
        ours = native.trace(images)
        for other in others:
            theirs = other.trace(images)
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5, rtol=0)
            for step, its in zip(ours.steps, theirs.steps, strict=True):
                np.testing.assert_array_equal(step.map, its.map)
                np.testing.assert_array_equal(step.index, its.index)
