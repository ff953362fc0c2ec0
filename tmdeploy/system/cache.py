"""The user's cache folder: libraries built here, downloaded headers, TensorRT's caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tmdeploy.errors import UsageError

CACHE_VARIABLE = "TMDEPLOY_CACHE"


def user_cache() -> Path:
    """The folder named by `TMDEPLOY_CACHE`, or the system's usual one.

    Raises:
        UsageError: TMDEPLOY_CACHE is relative, which would load code from wherever the command is called.
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
    # The XDG Base Directory Specification: relative paths are invalid and must be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tmdeploy"
