"""This machine: processor, memory, GPU, and what is installed on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

_LONGEST = 1000  # characters of a command: `python -c` may hold a program


def cpu_name() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def command_line() -> str:
    """What started this process, as it was typed: `tmdeploy build m.onnx`, or `python script.py`."""
    by_command = Path(sys.argv[0]).stem == "tmdeploy"
    words = ["tmdeploy", *sys.argv[1:]] if by_command else [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]
    return shlex.join(words)[:_LONGEST]


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_name() -> str:
    """Name and driver of the first NVIDIA GPU, or why there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none (no nvidia-smi)"
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "none (nvidia-smi does not answer)"
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "none"


def package_version(name: str) -> str | None:
    """Version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_gib() -> float:
    """Physical memory of the machine, GiB."""
    import psutil

    total: int = psutil.virtual_memory().total
    return round(total / 2**30, 1)
