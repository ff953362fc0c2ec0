"""The option that refuses native code; its callback is all of it, so a command only has to name it."""

from __future__ import annotations

from typing import Annotated

import typer


def _apply(wanted: bool) -> bool:
    if not wanted:
        from tmdeploy.native.library import refuse_native

        refuse_native()
    return wanted


NativeOption = Annotated[
    bool,
    typer.Option(
        "--native/--no-native",
        callback=_apply,
        help="Run reduction steps by the native library where there is one (tmdeploy plugins list).",
    ),
]
