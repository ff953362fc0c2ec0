"""`tmdeploy infer`: classify images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    ThreadsOption,
    TrustOption,
    progress,
    warn_notes,
    warn_skipped,
)
from .native_option import NativeOption, TrustEngineOption
from .numbers import MOST_IMAGES
from .schedule_option import KeepOption, ROption, ScheduleOption, amounts_of, asked_for, one_of, reducer
from .timeout_option import TimeoutOption


def infer(
    model: Annotated[Path, typer.Argument(help="Model: .onnx, or a checkpoint.", show_default=False)],
    image: Annotated[list[str], typer.Argument(help="Images, folders or globs.", show_default=False)],
    top_k: Annotated[int, typer.Option(min=1, help="Classes an image.")] = 5,
    batch: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="Images at a time.")] = 8,
    r: ROption = None,
    keep: KeepOption = None,
    schedule: ScheduleOption = None,
    class_names: Annotated[Path | None, typer.Option(help="Class names: one a line, or JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the result as CSV.")] = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    timeout: TimeoutOption = None,
    native: NativeOption = True,
    trust_engine: TrustEngineOption = False,
    arch: ArchOption = None,
    num_heads: NumHeadsOption = None,
    assume: AssumeOption = None,
    ema: EmaOption = False,
    ignore_extra: IgnoreExtraOption = False,
    trust_checkpoint: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Classify images: top-k table, CSV or JSON. Images that cannot be read are skipped, named and counted.

    tmdeploy infer deit_s.onnx photos/ --top-k 3
    """
    from tmdeploy.backends import backend_for, open_runner
    from tmdeploy.data.images import find_images
    from tmdeploy.data.labels import read_class_names
    from tmdeploy.errors import CheckFailed
    from tmdeploy.inference import classify
    from tmdeploy.report.tables.predictions import predictions_csv, predictions_document, predictions_table
    from tmdeploy.system.files import write_text

    paths = find_images(image)
    out = Output(json, reads=[model, *paths, *filter(None, [class_names])], writes={"--csv": csv})
    names = read_class_names(class_names) if class_names is not None else None
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
    with progress() as tell:
        tell("loading the model")
        with open_runner(model, threads=threads, backend=backend, **options) as runner:
            warn_notes(runner)
            amounts = amounts_of(asked, reducer(runner))
            predictions = classify(
                runner,
                paths,
                top_k=top_k,
                batch=batch,
                schedule=amounts,
                class_names=runner.class_names if names is None else names,
                names_from=class_names,
                progress=tell,
            )
    out.console.print(predictions_table(predictions))
    warn_skipped(predictions.skipped, read=len(predictions.images))
    if csv is not None:
        write_text(csv, predictions_csv(predictions), option="--csv")
    out.emit(predictions_document(predictions, {"path": str(model), **runner.facts.described()}))
    failed = predictions.unclassified
    if failed:
        raise CheckFailed(
            f"{len(failed)} of {len(predictions.images)} images have no class: {failed[0].problem}",
            path=failed[0].path,
            remedy=f"Check the model's weights and its precision: tmdeploy validate REFERENCE {model}",
        )
