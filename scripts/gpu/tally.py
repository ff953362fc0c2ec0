"""The count of checks."""

from __future__ import annotations

import sys


class Tally:
    """Counts checks and keeps the failed ones."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []

    def check(self, good: bool, what: str) -> None:
        """Count one check."""
        if good:
            self.passed += 1
        else:
            self.failed.append(what)
            print(f"FAIL {what}", file=sys.stderr)
