"""Builds of the native sources for the tests: into a temporary folder, once a session."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
KERNELS = PLUGINS / "kernels" / "cuda"
SOURCES = ("c_api.cpp", "emulator/cuda_on_host.cpp", "token_match.cu", "token_select.cu", "token_reduce.cu")


def run(command: list[str | Path], timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a tool and fail the test with what it said."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(str(part) for part in command)}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done


def need(tool: str) -> str:
    """Path of a compiler, or skip."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return found


def emulated_library(folder: Path, kernels: Path = KERNELS, flags: tuple[str, ...] = ()) -> Path:
    """The kernels compiled for the host, as a shared library."""
    library = folder / "libtmdeploy_cuda_emulated.so"
    compiler = need("g++")
    objects: list[Path] = []
    jobs: list[subprocess.Popen[str]] = []
    for source in SOURCES:
        objects.append(folder / f"{Path(source).name}.o")
        jobs.append(
            subprocess.Popen(
                [
                    compiler,
                    "-std=c++17",
                    "-O2",
                    "-fPIC",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-Wno-unknown-pragmas",
                    "-ffp-contract=off",
                    "-DTMDEPLOY_EMULATE",
                    *flags,
                    "-x",
                    "c++",
                    "-c",
                    kernels / source,
                    "-o",
                    objects[-1],
                ],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for job in jobs:
        _, said = job.communicate(timeout=300)
        if job.returncode != 0:
            pytest.fail(said, pytrace=False)
    run([compiler, "-shared", *flags, *objects, "-o", library])
    return library
