"""Export a patched module of tests/vits.py through a checkpoint, as a user would, and load the result."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from torch import nn

from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.models.checkpoint import save_checkpoint
from tmdeploy.models.vit import VisionTransformer
from tmdeploy.patching import reduction_of


def save_tiny(model: VisionTransformer, folder: Path, *, with_recipe: bool = True) -> Path:
    """A checkpoint in tmdeploy's own format."""
    path = folder / "tiny.pt"
    recipe = reduction_of(model).recipe if with_recipe else None
    config = model.config
    save_checkpoint(
        path,
        model,
        recipe=recipe,
        preprocessing=Preprocessing(image_size=config.image_size),
        class_names=tuple("abcdefghij"[: config.num_classes]),
    )
    return path


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export_module(model: nn.Module, folder: Path, **request: object) -> onnxruntime.InferenceSession:
    assert isinstance(model, VisionTransformer)
    output = folder / "tiny.onnx"
    request.setdefault("verify", False)
    export_checkpoint(ExportRequest(checkpoint=save_tiny(model, folder), output=output, **request))
    return open_session(output)
