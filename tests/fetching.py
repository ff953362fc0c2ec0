"""What several workers of pytest-xdist fetch into one cache, one of them does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import zipfile
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


def unpacked_wheel(requirement: str, unchecked: str, *, without: tuple[str, ...] = ()) -> Path:
    """A folder for PYTHONPATH with what one wheel installs, kept in the user's cache. Skips, loudly, without.

    Args:
        requirement: Such as `onnxruntime==1.20.1`.
        unchecked: What is not checked then, for the skip.
        without: Prefixes of files to leave out.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"{sys.version_info[0]}{sys.version_info[1]}"
    folder = base / "tmdeploy-tests" / f"{requirement.replace('==', '-')}-{python}"
    with one_at_a_time(folder):
        if not (folder / "package").is_dir():
            wheel = download_wheel(requirement, folder, unchecked)
            part = folder / f"part-{os.getpid()}"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(part, [name for name in archive.namelist() if not name.startswith(without)])
            wheel.unlink()  # as large as its content
            part.rename(folder / "package")
    return folder / "package"
