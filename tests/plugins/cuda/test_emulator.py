"""Sanitizers over the emulated kernels, and proof that the emulator sees the bugs it is there for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scripts.gpu.kernel_library import KernelError, KernelLibrary
from tests.plugins.cuda.building import KERNELS, emulated_library, need, run
from tmdeploy.ops.reference import token_match, token_reduce


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    sanitizers = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
    library = emulated_library(tmp_path, flags=sanitizers)
    stress = tmp_path / "stress"
    source = Path(__file__).with_name("stress.cpp")
    link = [library, f"-Wl,-rpath,{tmp_path}"]
    run(
        [
            need("g++"),
            "-std=c++17",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            *sanitizers,
            "-I",
            KERNELS,
            source,
            *link,
            "-o",
            stress,
        ]
    )
    done = subprocess.run([stress, "8"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


def _differs(library: KernelLibrary) -> bool:
    """Whether some schedule of a match and its reduce departs from the reference, or the emulator objects."""
    torch.manual_seed(0)
    metric, x = torch.randn(1, 600, 8), torch.randn(1, 600, 24)  # more than a counting rank takes
    plan, index, sim = token_match(metric, torch.arange(400))
    y, wsum = token_reduce(x, plan, index)
    for seed in range(3):
        library.seed(seed)
        try:
            got = (*library.match(metric, 400), *library.reduce(x, plan, index))
        except KernelError:
            return True
        if not all(torch.equal(a, b) for a, b in zip(got, (plan, index, sim, y, wsum), strict=True)):
            return True
    return False


PLANTED = {
    "a missing barrier between sort stages": (
        "ranking.cuh",
        "      __syncthreads();\n      for (int pair",
        "      for (int pair",
    ),
    "a missing barrier before the rows are used": (
        "proposal.cuh",
        "      __syncthreads();\n      if (warp_row < rows_here) {",
        "      if (warp_row < rows_here) {",
    ),
    "a barrier that some threads skip": (
        "block.cuh",
        "    if (i < n) emit(i, flagged, before);\n    __syncthreads();",
        "    if (i < n) emit(i, flagged, before);\n    if (threadIdx.x != 0) __syncthreads();",
    ),
    "a shuffle too few": (
        "block.cuh",
        "int offset = kWarpSize / 2; offset > 0",
        "int offset = kWarpSize / 2; offset > 1",
    ),
    "a tie that goes to the higher token": (
        "ranking.cuh",
        "0xFFFFFFFFU - static_cast<std::uint32_t>(element)",
        "static_cast<std::uint32_t>(element)",
    ),
    "a sum without its anchor": (
        "slot_members.cuh",
        "      if (lane == 0) member[position]",
        "      if (lane == kWarpSize) member[position]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_show(tmp_path: Path, bug: str) -> None:
    name, good, bad = PLANTED[bug]
    sources = tmp_path / "kernels" / "cuda"
    shutil.copytree(KERNELS, sources)
    shutil.copytree(KERNELS.parent / "common", tmp_path / "kernels" / "common")
    text = (sources / name).read_text()
    assert good in text
    (sources / name).write_text(text.replace(good, bad))
    assert _differs(KernelLibrary(emulated_library(tmp_path, sources)))


def test_the_kernels_do_not(kernels: KernelLibrary) -> None:
    assert not _differs(kernels)
