"""`tmdeploy demo`: the main job on the checkpoint that comes with the repository."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from json import loads as read_json
from pathlib import Path
from typing import Annotated

import typer

from .bench import bench
from .console import Output
from .export import export
from .infer import infer
from .options import JsonOption
from .validate import validate


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is made.")] = Path("out"),
    examples: Annotated[
        Path | None, typer.Option(help="Folder with digits_tome.pt and digits/; default: the repository's examples/.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Export, validate, bench and infer with a small trained checkpoint (digits, ToMe r=8). Trains nothing."""
    from tmdeploy.errors import DataError
    from tmdeploy.report.text import styled
    from tmdeploy.system.ending import temporary_folder
    from tmdeploy.system.files import make_folder

    folder = examples or Path(__file__).resolve().parent.parent / "examples"
    checkpoint, images = folder / "digits_tome.pt", folder / "digits"
    if not checkpoint.is_file() or not images.is_dir():
        raise DataError(
            "the demo's checkpoint and images are not here",
            path=folder,
            remedy="Name the repository's examples/ with --examples",
        )
    make_folder(output)
    model = output / "digits_tome.onnx"
    out = Output(json, reads=[checkpoint, images], writes={"the exported file": model})
    steps: tuple[tuple[str, Callable[[str], None]], ...] = (
        (
            f"tmdeploy export {checkpoint.name} -o {model}",
            lambda result: export(checkpoint, output=model, verify_data=[str(images)], json=result),
        ),
        (
            f"tmdeploy validate {checkpoint.name} {model} --data {images.name}",
            lambda result: validate(checkpoint, model, data=[str(images)], json=result),
        ),
        (
            f"tmdeploy bench {model} --duration 1s --free-merge",
            lambda result: bench([model], duration="1s", free_merge=True, json=result),
        ),
        (
            f"tmdeploy infer {model} {images.name}/?_0.png --top-k 1",
            lambda result: infer(model, [f"{images}/?_0.png"], top_k=1, json=result),
        ),
    )
    documents = []
    with temporary_folder("tmdeploy-demo-") as results, contextlib.redirect_stdout(out.console.file):
        for command, run in steps:
            out.console.rule(styled((command, "bold")), align="left")
            run(str(results / "result.json"))
            documents.append({"command": command, "result": read_json((results / "result.json").read_text("utf-8"))})
            out.console.print()
    out.emit({"schema": "tmdeploy.demo/1", "steps": documents})
