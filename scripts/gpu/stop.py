"""Why the check cannot go on."""

from __future__ import annotations

MISSING = 3
BUILD_FAILED = 4


class CheckError(Exception):
    """The check cannot go on; carries the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
