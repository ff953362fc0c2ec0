"""The option that chooses who runs an .onnx, in its forms: of one model, of the judged one, several side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from tmdeploy.errors import UsageError

_NAMES = "onnxruntime (default), onnxruntime-cuda, onnxruntime-tensorrt, openvino, openvino:bf16"

BackendOption = Annotated[str | None, typer.Option("--backend", metavar="NAME", help=f"Runs an .onnx: {_NAMES}.")]
CandidateOption = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help=f"Runs the candidate, an .onnx: {_NAMES}.")
]
BackendsOption = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAMES", help=f"Run an .onnx, one arm each, separated by commas: {_NAMES}."),
]


def backend_names(text: str | None) -> tuple[str | None, ...]:
    """`onnxruntime,openvino:bf16` to the two; None, the suffix's default, where nothing was said.

    Raises:
        UsageError: A name twice. Whether there is such a backend is found out when it is opened.
    """
    if text is None:
        return (None,)
    names = tuple(part.strip() for part in text.split(","))
    if len(set(names)) < len(names):
        raise UsageError(f"--backend {text}: a backend twice")
    return names
