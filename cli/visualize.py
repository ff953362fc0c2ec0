"""`tmdeploy visualize`: which patches became which token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .backend_option import BackendOption
from .console import Output, TrustOption, progress, warn_skipped
from .native_option import NativeOption
from .schedule_option import KeepOption, ROption, ScheduleOption, amounts_of, asked_for, one_of, reducer

if TYPE_CHECKING:
    from PIL.Image import Image

    from tmdeploy.backends import Runner


def visualize(
    model: Annotated[Path, typer.Argument(help="An .onnx exported by tmdeploy, or a checkpoint.", show_default=False)],
    image: Annotated[list[str], typer.Argument(help="Images, folders or globs.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder, or a .png for a single image.")] = Path(
        "out"
    ),
    block: Annotated[
        list[int] | None, typer.Option(help="Show the state after this block. Repeatable. Default: the last step.")
    ] = None,
    r: ROption = None,
    keep: KeepOption = None,
    schedule: ScheduleOption = None,
    backend: BackendOption = None,
    native: NativeOption = True,
    trust_checkpoint: TrustOption = False,
) -> None:
    """Draw the merged groups of patches over each image, from the plans of the exported model.

    [dim]tmdeploy visualize deit_s.onnx photo.jpg -o groups.png[/dim]
    """
    from tmdeploy.backends import backend_for, open_runner
    from tmdeploy.errors import UsageError
    from tmdeploy.files import atomic_path
    from tmdeploy.images import ImageReader, find_images, nothing_readable

    paths = find_images(image)
    single = output.suffix.lower() == ".png"
    if single and len(paths) > 1:
        raise UsageError(f"{len(paths)} images do not fit in {output}", remedy="Name a folder with -o")
    asked = one_of(asked_for(r, keep, schedule))
    options: dict[str, Any] = {}
    if backend_for(model, backend).name == "pytorch":
        options["trust_checkpoint"] = trust_checkpoint
    written = []
    with progress() as tell:
        tell("loading the model")
        runner = open_runner(model, backend=backend, **options)
        amounts = amounts_of(asked, reducer(runner))
        if not single:
            output.mkdir(parents=True, exist_ok=True)
        reader = ImageReader(paths, runner.preprocessing, in_graph=runner.pixels_in)
        for batch in reader.batches(1):
            tell(f"drawing {batch.paths[0].name}")
            sheet = _sheet(runner, batch.paths[0], batch.images, amounts, block)
            target = output if single else output / f"{batch.paths[0].stem}.png"
            with atomic_path(target) as temporary:
                sheet.save(temporary)
            written.append(target)
    warn_skipped(reader.skipped, read=len(written))
    if not written:
        raise nothing_readable(reader.skipped)
    console = Output(None).console
    for target in written:
        console.print(f"wrote {target}")


def _sheet(
    runner: Runner, path: Path, images: object, amounts: tuple[int, ...] | None, blocks: list[int] | None
) -> Image:
    import numpy as np
    from PIL import Image as Pillow

    from tmdeploy.errors import UsageError
    from tmdeploy.models.arch import VitConfig
    from tmdeploy.preprocessing import resize_and_crop
    from tmdeploy.visualize import compose, draw_groups, fused_slots, side_by_side

    trace = runner.trace(np.asarray(images), amounts)
    if not trace.steps:
        raise UsageError(f"{runner.name} reduces no tokens: there is nothing to draw")
    config = getattr(runner, "config", None)
    if runner.metadata is not None:
        config = VitConfig.model_validate(runner.metadata.architecture)
    assert isinstance(config, VitConfig)  # noqa: S101 - a runner that traces has one or the other
    known = [step.block for step in trace.steps]
    for wanted in blocks or []:
        if wanted not in known:
            raise UsageError(
                f"--block {wanted}: no reduction step there", remedy=f"Choose from: {', '.join(map(str, known))}"
            )
    with Pillow.open(path) as opened:
        picture = resize_and_crop(opened, runner.preprocessing)
    zoom = max(1, round(448 / max(picture.size)))
    large = picture.resize((picture.width * zoom, picture.height * zoom), Pillow.Resampling.NEAREST)
    panels = [(f"{path.name}: {config.tokens - config.num_prefix} patches", large)]
    for wanted in blocks or [known[-1]]:
        steps = trace.steps[: known.index(wanted) + 1]
        groups = compose(steps, tokens=config.tokens, num_prefix=config.num_prefix)[0]
        fused = frozenset(fused_slots(steps, tokens=config.tokens, num_prefix=config.num_prefix)[0])
        left = steps[-1].index.shape[1] - config.num_prefix
        dropped = int((groups == -1).sum())
        caption = f"after block {wanted}: {left} tokens" + (f", {dropped} patches dropped" if dropped else "")
        panels.append((caption, draw_groups(picture, groups, config.grid, fused=fused, zoom=zoom)))
    return side_by_side(panels)
