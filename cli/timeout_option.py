"""The option that limits how long a file may take; its callback is all of it, so a command only has to name it."""

from __future__ import annotations

from typing import Annotated

import typer


def _apply(seconds: float | None) -> float | None:
    if seconds is not None:
        from tmdeploy.system.boundary import set_time_limit

        set_time_limit(seconds)
    return seconds


TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        callback=_apply,
        help="Give up (exit code 124) when loading a file, or one run of it, takes longer; default: never.",
    ),
]
