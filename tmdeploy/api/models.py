"""`tmdeploy.open_runner`: a model to run. `tmdeploy.load_card`: what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Checkpoint, FilePath, opened

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.backends import Runner
    from tmdeploy.card import ModelCard


def open_runner(
    model: FilePath, *, backend: str | None = None, threads: int | None = None, **checkpoint: Unpack[Checkpoint]
) -> Runner:
    """Load a model with the backend of its suffix, or another one that reads it.

        runner = tmdeploy.open_runner("deit_s.onnx", threads=1)
        logits = runner.infer(images)

    Args:
        model: An `.onnx`, a checkpoint or an engine.
        backend: A backend's name, perhaps with a precision (`openvino:bf16`); None takes the default.
        threads: Threads of the backend; None leaves its default.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        ArtifactError, CheckpointError: The file is missing, truncated or foreign.
        EnvironmentMissing: The backend's package is not installed.
        UsageError: No such backend or precision, or more threads than any machine wants.
    """
    return opened(model, backend, threads, checkpoint)


def load_card(model: FilePath, **checkpoint: Unpack[Checkpoint]) -> ModelCard | None:
    """Read what a model is, whatever file it lies in; None for an `.onnx` that tmdeploy did not export.

        tmdeploy.load_card("deit_s.onnx").total_macs()

    Args:
        model: An `.onnx`, an engine with its sidecar, or a checkpoint, for which alone torch is imported.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        ArtifactError, CheckpointError: The file is missing, truncated or foreign.
        EnvironmentMissing: It is a checkpoint, and torch is not installed.
        UsageError: Nothing reads files of this suffix, or an option that cannot be meant.
    """
    from tmdeploy.backends import backend_for

    path = Path(model)
    backend = backend_for(path)
    if backend.reads_checkpoints:
        from tmdeploy.lazy import require

        require("torch", purpose=f"reading the checkpoint {path}")
        from tmdeploy.models.checkpoint import load_checkpoint

        return load_checkpoint(path, **checkpoint).card
    if backend.name == "tensorrt":
        from tmdeploy.tensorrt.record.sidecar import read_sidecar

        return read_sidecar(path).card
    from tmdeploy.graph.onnx_file import read_onnx

    metadata = read_onnx(path, weights=False)[1]
    return None if metadata is None else metadata.card
