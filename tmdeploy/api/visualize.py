"""`tmdeploy.visualize`: which patches became which token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.api.arguments import Amounts, Checkpoint, FilePath, as_tuple, opened
from tmdeploy.api.schedules import amounts_of, asked_for, one_of, reducer
from tmdeploy.errors import UsageError
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tmdeploy.report.schemas.drawings import Drawings


def visualize(
    model: FilePath,
    image: FilePath | Sequence[FilePath],
    output: FilePath = "out",
    *,
    block: int | Sequence[int] = (),
    r: Amounts | None = None,
    keep: Amounts | None = None,
    schedule: Amounts | None = None,
    backend: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    **checkpoint: Unpack[Checkpoint],
) -> Drawings:
    """Draw the merged groups of patches over each image, from the plans of the model.

        tmdeploy.visualize("deit_s.onnx", "photo.jpg", "groups.png")

    Args:
        model: An `.onnx` that tmdeploy exported, or a checkpoint.
        image: Files, folders, globs. Those that cannot be read are skipped and listed.
        output: A folder, or a `.png` for a single image.
        block: Show the state after each of these blocks; none shows that after the last step.
        r: Tokens to merge per block: 13, "26:0", [8, 8, 4].
        keep: Patch tokens to keep per step: 0.7, [138, 97, 68].
        schedule: Either of the two, whichever the model takes.
        backend: Runs an `.onnx`; None takes the default.
        threads: Threads of the backend; None leaves its default.
        progress: Called with each image.
        checkpoint: How a checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        UsageError: An option that cannot be meant, or a model without plans or without a grid of patches.
        ArtifactError, CheckpointError: The model cannot be read, or a drawing cannot be written.
        DataError: No image can be read.
        EnvironmentMissing: A package that the model needs is not installed.
    """
    from tmdeploy.data.images import ImageReader, find_images, nothing_readable
    from tmdeploy.drawing import drawing_of
    from tmdeploy.report.schemas.drawings import Drawing, Drawings
    from tmdeploy.report.schemas.predictions import Skipped
    from tmdeploy.system.files import atomic_path, make_folder

    targets = drawing_paths(find_images(as_tuple(image)), Path(output))
    if Path(output) not in targets.values():
        make_folder(Path(output))
    asked = one_of(asked_for(r, keep, schedule))
    progress("loading the model")
    with opened(model, backend, threads, checkpoint) as runner:
        amounts = amounts_of(asked, reducer(runner))
        reader = ImageReader(list(targets), runner.preprocessing, in_graph=runner.pixels_in)
        drawings = []
        for batch in reader.batches(1):
            path = batch.paths[0]
            progress(f"drawing {path.name}")
            sheet, panels, finite = drawing_of(runner, path, batch.images, amounts, as_tuple(block))
            with atomic_path(targets[path]) as temporary:
                sheet.save(temporary)
            drawings.append(Drawing(image=path, drawing=targets[path], finite=finite, blocks=panels))
    if not drawings:
        raise nothing_readable(reader.skipped)
    return Drawings(
        model={"path": str(model), **runner.facts.described()},
        drawings=tuple(drawings),
        skipped=tuple(Skipped(path=path, reason=reason) for path, reason in reader.skipped),
    )


def drawing_paths(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The drawing of each image.

    Raises:
        UsageError: Several images for one file.
    """
    from tmdeploy.drawing import drawing_names

    paths = list(dict.fromkeys(images))
    if output.suffix.lower() != ".png":
        return dict(zip(paths, (output / name for name in drawing_names(paths)), strict=True))
    if len(paths) > 1:
        raise UsageError(f"{len(paths)} images do not fit in {output}", remedy="Name a folder with -o")
    return dict.fromkeys(paths, output)
