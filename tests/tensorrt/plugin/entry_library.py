"""The entry kernels on the emulator, launched by name with an argument list, as cuLaunchKernel would."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from torch import Tensor

from tests.plugins.cuda.building import KERNELS, need, run

SOURCES = (
    "aot/match_entries.cu",
    "aot/select_entries.cu",
    "aot/reduce_entries.cu",
    "aot/emulated_entry.cpp",
    "emulator/cuda_on_host.cpp",
)
_FLAGS = ["-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]


class LaunchError(Exception):
    """What the emulator found."""


def build_entries(folder: Path) -> Path:
    """Compile the entries for the host."""
    compiler = need("g++")
    jobs = []
    objects: list[Path] = []
    for source in SOURCES:
        objects.append(folder / f"{Path(source).name}.o")
        command = [compiler, *_FLAGS, "-DTMDEPLOY_EMULATE", "-x", "c++", "-c", str(KERNELS / source)]
        jobs.append(subprocess.Popen([*command, "-o", str(objects[-1])], stderr=subprocess.PIPE, text=True))
    for job in jobs:
        _, said = job.communicate(timeout=300)
        if job.returncode != 0:
            pytest.fail(said, pytrace=False)
    library = folder / "libtmdeploy_entries.so"
    run([compiler, "-shared", *objects, "-o", library])
    return library


class EntryLibrary:
    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.tmdeploy_entry_signature.restype = ctypes.c_char_p
        self._library.tmdeploy_entry_launch.restype = ctypes.c_char_p

    def signature(self, entry: str) -> str | None:
        found = self._library.tmdeploy_entry_signature(entry.encode())
        return None if found is None else str(found.decode())

    def layout(self, op: str, length: int) -> tuple[int, ...]:
        return tuple((ctypes.c_int * length).in_dll(self._library, f"tmdeploy_{op}_layout"))

    def needed_bytes(self, op: str, *values: int) -> int:
        """Shared memory an entry uses, by its own C++."""
        function = getattr(self._library, f"tmdeploy_{op}_bytes")
        function.restype = ctypes.c_int64
        return int(function(*values))

    def launch(self, entry: str, grid: int, threads: int, shared_bytes: int, arguments: list[Tensor | int]) -> None:
        kinds = "".join("i" if isinstance(argument, int) else "p" for argument in arguments)
        assert kinds == self.signature(entry), entry
        held = [
            ctypes.c_int32(argument) if isinstance(argument, int) else ctypes.c_void_p(argument.data_ptr())
            for argument in arguments
        ]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        problem = self._library.tmdeploy_entry_launch(
            entry.encode(), ctypes.c_int64(grid), ctypes.c_int(threads), ctypes.c_size_t(shared_bytes), pointers
        )
        if problem:
            raise LaunchError(problem.decode())
