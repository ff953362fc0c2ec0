"""`tmdeploy visualize`: which patches became which token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .backend_option import BackendOption
from .console import (
    ArchOption,
    AssumeOption,
    EmaOption,
    IgnoreExtraOption,
    JsonOption,
    NumHeadsOption,
    Output,
    TrustOption,
    progress,
    warn_notes,
    warn_skipped,
)
from .native_option import NativeOption
from .schedule_option import KeepOption, ROption, ScheduleOption, amounts_of, asked_for, one_of, reducer
from .timeout_option import TimeoutOption

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
    timeout: TimeoutOption = None,
    native: NativeOption = True,
    arch: ArchOption = None,
    num_heads: NumHeadsOption = None,
    assume: AssumeOption = None,
    ema: EmaOption = False,
    ignore_extra: IgnoreExtraOption = False,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Draw the merged groups of patches over each image, from the plans of the exported model.

    tmdeploy visualize deit_s.onnx photo.jpg -o groups.png
    """
    from tmdeploy.backends import backend_for, open_runner
    from tmdeploy.data.images import ImageReader, find_images, nothing_readable
    from tmdeploy.errors import CheckFailed, UsageError
    from tmdeploy.system.files import atomic_path, make_folder
    from tmdeploy.visualize import drawing_names

    paths = list(dict.fromkeys(find_images(image)))
    single = output.suffix.lower() == ".png"
    if single and len(paths) > 1:
        raise UsageError(f"{len(paths)} images do not fit in {output}", remedy="Name a folder with -o")
    if not single:
        make_folder(output)
    targets = dict(zip(paths, [output] if single else [output / name for name in drawing_names(paths)], strict=True))
    drawings = {"-o": output} if single else {f"the drawing of {path}": target for path, target in targets.items()}
    out = Output(json, reads=[model, *paths], writes=drawings)
    asked = one_of(asked_for(r, keep, schedule))
    options: dict[str, Any] = {}
    if backend_for(model, backend).reads_checkpoints:
        options = {
            "arch": arch,
            "num_heads": num_heads,
            "assume": tuple(assume or ()),
            "ema": ema,
            "ignore_extra": ignore_extra,
            "trust_checkpoint": trust_checkpoint,
        }
    written: list[dict[str, object]] = []
    with progress() as tell:
        tell("loading the model")
        with open_runner(model, backend=backend, **options) as runner:
            warn_notes(runner)
            amounts = amounts_of(asked, reducer(runner))
            reader = ImageReader(paths, runner.preprocessing, in_graph=runner.pixels_in)
            for batch in reader.batches(1):
                path = batch.paths[0]
                tell(f"drawing {path.name}")
                drawn = _sheet(runner, path, batch.images, amounts, block)
                with atomic_path(targets[path]) as temporary:
                    drawn.sheet.save(temporary)
                entry = {
                    "image": str(path),
                    "drawing": str(targets[path]),
                    "finite": drawn.finite,
                    "blocks": drawn.blocks,
                }
                written.append(entry)
    warn_skipped(reader.skipped, read=len(written))
    if not written:
        raise nothing_readable(reader.skipped)
    for entry in written:
        out.console.print(f"wrote {entry['drawing']}")
    out.emit(
        {
            "schema": "tmdeploy.visualize/1",
            "model": {"path": str(model), **runner.facts.described()},
            "drawings": written,
            "skipped": [{"path": str(path), "reason": reason} for path, reason in reader.skipped],
        }
    )
    wrong = [entry["image"] for entry in written if not entry["finite"]]
    if wrong:
        raise CheckFailed(
            f"{len(wrong)} of {len(written)} images have logits that are NaN or infinite, so their plans mean nothing",
            path=str(wrong[0]),
            remedy=f"Check the model's weights and its precision: tmdeploy validate REFERENCE {model}",
        )


class _Drawing(NamedTuple):
    """A picture, what its captions say, and whether the model's logits are numbers."""

    sheet: Image
    blocks: list[dict[str, int]]
    finite: bool


def _sheet(
    runner: Runner, path: Path, images: object, amounts: tuple[int, ...] | None, blocks: list[int] | None
) -> _Drawing:
    import numpy as np
    from PIL import Image as Pillow

    from tmdeploy.card.facts import ModelFacts, read_config
    from tmdeploy.data.images import opened_image
    from tmdeploy.data.preprocessing import resize_and_crop
    from tmdeploy.errors import UsageError
    from tmdeploy.report.text import one_line
    from tmdeploy.visualize import compose, draw_groups, fused_slots, side_by_side

    trace = runner.trace(np.asarray(images), amounts)
    if not trace.steps:
        raise UsageError(f"{runner.name} reduces no tokens: there is nothing to draw")
    config = getattr(runner, "config", None)
    if runner.metadata is not None:
        config = read_config(runner.metadata.architecture)
    assert config is not None  # noqa: S101 - a runner that traces has one or the other
    if isinstance(config, ModelFacts) and config.grid is None:
        raise UsageError(f"{runner.name} does not say how its patches lie, so there is nothing to draw on")
    known = [step.block for step in trace.steps]
    for wanted in blocks or []:
        if wanted not in known:
            raise UsageError(
                f"--block {wanted}: no reduction step there", remedy=f"Choose from: {', '.join(map(str, known))}"
            )
    with opened_image(path, runner.preprocessing) as opened:
        picture = resize_and_crop(opened, runner.preprocessing)
    zoom = max(1, round(448 / max(picture.size)))
    large = picture.resize((picture.width * zoom, picture.height * zoom), Pillow.Resampling.NEAREST)
    panels = [(f"{one_line(path.name)}: {config.tokens - config.num_prefix} patches", large)]
    counts = []
    for wanted in blocks or [known[-1]]:
        steps = trace.steps[: known.index(wanted) + 1]
        groups = compose(steps, tokens=config.tokens, num_prefix=config.num_prefix)[0]
        fused = frozenset(fused_slots(steps, tokens=config.tokens, num_prefix=config.num_prefix)[0])
        left = steps[-1].index.shape[1] - config.num_prefix
        dropped = int((groups == -1).sum())
        caption = f"after block {wanted}: {left} tokens" + (f", {dropped} patches dropped" if dropped else "")
        counts.append({"block": wanted, "tokens": left, "dropped": dropped})
        panels.append((caption, draw_groups(picture, groups, config.grid, fused=fused, zoom=zoom)))
    return _Drawing(side_by_side(panels), counts, bool(np.isfinite(trace.logits).all()))
