"""`tmdeploy demo`: the main job on the checkpoint that comes with the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .bench import bench
from .console import Output
from .export import export
from .infer import infer
from .validate import validate


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is made.")] = Path("out"),
    examples: Annotated[
        Path | None, typer.Option(help="Folder with digits_tome.pt and digits/; default: the repository's examples/.")
    ] = None,
) -> None:
    """Export, validate, bench and infer with a small trained checkpoint (digits, ToMe r=8). Trains nothing."""
    from tmdeploy.errors import DataError
    from tmdeploy.report.text import styled

    folder = examples or Path(__file__).resolve().parent.parent / "examples"
    checkpoint, images = folder / "digits_tome.pt", folder / "digits"
    if not checkpoint.is_file() or not images.is_dir():
        raise DataError(
            "the demo's checkpoint and images are not here",
            path=folder,
            remedy="Name the repository's examples/ with --examples",
        )
    output.mkdir(parents=True, exist_ok=True)
    model = output / "digits_tome.onnx"
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        (f"tmdeploy export {checkpoint.name} -o {model}", lambda: export(checkpoint, model, verify_data=[images])),
        (
            f"tmdeploy validate {checkpoint.name} {model} --data {images.name}",
            lambda: validate(checkpoint, model, data=[str(images)]),
        ),
        (f"tmdeploy bench {model} --duration 1s --free-merge", lambda: bench([model], duration="1s", free_merge=True)),
        (
            f"tmdeploy infer {model} {images.name}/?_0.png --top-k 1",
            lambda: infer(model, [f"{images}/?_0.png"], top_k=1),
        ),
    )
    console = Output(None).console
    for command, run in steps:
        console.rule(styled((command, "bold")), align="left")
        run()
        console.print()
