"""Options about native code; their callbacks are all of them, so a command only has to name them."""

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


def _trust(trusted: bool) -> bool:
    if trusted:
        from tmdeploy.tensorrt.run.trust import trust_engines

        trust_engines()
    return trusted


TrustEngineOption = Annotated[
    bool,
    typer.Option(
        "--trust-engine", callback=_trust, help="Allow code in an engine, or in a library that its sidecar names."
    ),
]
