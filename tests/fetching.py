"""What several workers of pytest-xdist fetch into one cache, one of them does."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; whoever gets it later looks again whether the work is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def download_wheel(requirement: str, folder: Path, unchecked: str) -> Path:
    """The one wheel that pip finds, without its dependencies. Skips, loudly, where there is none to be had.

    Args:
        requirement: Such as `tensorrt-cu13-bindings==11.4.0.106`.
        folder: Where it goes; it is made.
        unchecked: What is not checked then, for the skip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no wheel"]
        pytest.skip(f"{unchecked}: {requirement} cannot be downloaded ({lines[-1]})")
    return wheels[0]
