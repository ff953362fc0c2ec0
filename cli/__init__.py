"""The command line: one module a command, each parses, calls the library and prints. Installed as `tmdeploy_cli`.

This module imports next to nothing, so that signals are heard before anything else is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `tmdeploy` script."""
    from .signals import heard

    with heard(alone=argv is None):
        from .app import run

        run(argv)
