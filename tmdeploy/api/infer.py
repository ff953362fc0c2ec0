"""`tmdeploy.infer`: classify images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Amounts, Checkpoint, FilePath, as_tuple, opened
from tmdeploy.api.schedules import amounts_of, asked_for, one_of, reducer
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.report.schemas.predictions import Predictions


def infer(
    model: FilePath,
    image: FilePath | Sequence[FilePath],
    *,
    top_k: int = 5,
    batch: int = 8,
    r: Amounts | None = None,
    keep: Amounts | None = None,
    schedule: Amounts | None = None,
    class_names: FilePath | Sequence[str] | None = None,
    backend: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    **checkpoint: Unpack[Checkpoint],
) -> Predictions:
    """Classify images. Those that cannot be read are skipped and listed.

        found = tmdeploy.infer("deit_s.onnx", "photos/", top_k=3)
        found.images[0].top[0].name

    Args:
        model: An `.onnx`, a checkpoint or an engine.
        image: Files, folders, globs.
        top_k: Classes an image.
        batch: Images at a time.
        r: Tokens to merge per block: 13, "26:0", [8, 8, 4].
        keep: Patch tokens to keep per step: 0.7, [138, 97, 68].
        schedule: Either of the two, whichever the model takes.
        class_names: A file, one name a line or JSON, or the names; None takes the model's own.
        backend: Runs an `.onnx`; None takes the default.
        threads: Threads of the backend; None leaves its default.
        progress: Called as images are classified.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        UsageError: An option that cannot be meant.
        ArtifactError, CheckpointError: The model cannot be read, or has no classifier.
        DataError: No image can be read, or there are more or fewer names than classes.
        EnvironmentMissing: A package that the model needs is not installed.
    """
    from tmdeploy.data.images import find_images
    from tmdeploy.data.labels import read_class_names
    from tmdeploy.inference import classify

    paths = find_images(as_tuple(image))
    named, names = None, class_names
    if isinstance(class_names, str | Path):
        named, names = Path(class_names), read_class_names(Path(class_names))
    asked = one_of(asked_for(r, keep, schedule))
    progress("loading the model")
    with opened(model, backend, threads, checkpoint) as runner:
        return classify(
            runner,
            paths,
            top_k=top_k,
            batch=batch,
            schedule=amounts_of(asked, reducer(runner)),
            class_names=runner.class_names if names is None else as_tuple(names),
            names_from=named,
            progress=progress,
        )
