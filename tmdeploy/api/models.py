"""`tmdeploy.open_runner`: a model to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Checkpoint, FilePath, opened

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.backends import Runner


def open_runner(
    model: FilePath, *, backend: str | None = None, threads: int | None = None, **checkpoint: Unpack[Checkpoint]
) -> Runner:
    """Load a model with the backend of its suffix, or another one that reads it.

        runner = tmdeploy.open_runner("deit_s.onnx", threads=1)
        logits = runner.infer(images)

    Args:
        model: An `.onnx`, a checkpoint or an engine.
        backend: A backend's name, perhaps with a precision (`openvino:bf16`); None takes the default.
        threads: Of the backend; None leaves its default.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        ArtifactError, CheckpointError: The file is missing, truncated or foreign.
        EnvironmentMissing: The backend's package is not installed.
        UsageError: No such backend or precision, or more threads than any machine wants.
    """
    return opened(model, backend, threads, checkpoint)
