"""Builds the kernels and the plugin for the GPU of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import torch

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.tensorrt_headers import download_tensorrt_headers, find_tensorrt_headers

from .stop import BUILD_FAILED, MISSING, CheckError

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, *, tensorrt: bool) -> None:
    """Build kernels, and plugin and harness, for this GPU."""
    for tool in ("cmake", "nvcc"):
        if shutil.which(tool) is None:
            raise CheckError(f"gpu_check needs {tool} on PATH to build (or --library)", MISSING)
    major, minor = torch.cuda.get_device_capability()
    source = ROOT / "plugins" / ("tensorrt" if tensorrt else "kernels/cuda")
    options = [f"-DCMAKE_CUDA_ARCHITECTURES={major}{minor}", "-DCMAKE_BUILD_TYPE=Release"]
    if tensorrt:
        try:
            headers = find_tensorrt_headers() or download_tensorrt_headers()
        except EnvironmentMissing as error:
            raise CheckError(f"{error} (or --no-tensorrt)", MISSING) from error
        options.append(f"-DTMDEPLOY_TENSORRT_INCLUDE={headers}")
    jobs = str(os.cpu_count() or 1)
    for command in (
        ["cmake", "-S", str(source), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "-j", jobs],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - arguments are the project's own
        if done.returncode != 0:
            raise CheckError(f"{' '.join(command)}\n{done.stdout}{done.stderr}", BUILD_FAILED)


def find(folder: Path, name: str) -> Path:
    """The one file of that name below `folder`."""
    found = sorted(path for path in folder.rglob(name) if path.is_file())
    if not found:
        raise CheckError(f"the build left no {name} in {folder}", BUILD_FAILED)
    return found[0]
