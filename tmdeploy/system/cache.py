"""The user's folder for what can be made again: libraries built here, headers, TensorRT's caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tmdeploy.errors import UsageError

CACHE_VARIABLE = "TMDEPLOY_CACHE"


def user_cache() -> Path:
    """`TMDEPLOY_CACHE`, else the system's usual place.

    Raises:
        UsageError: TMDEPLOY_CACHE is relative: another folder wherever a command is called, and code is loaded from it.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        if not os.path.isabs(chosen):
            raise UsageError(f"{CACHE_VARIABLE} is {chosen}, a relative path", remedy="Write it in full")
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "tmdeploy" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tmdeploy"
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG Base Directory Specification: relative paths are invalid, and to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tmdeploy"
