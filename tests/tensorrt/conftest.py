"""The type of the fixture `exported` (tests/conftest.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Exported = Callable[..., Path]
