#!/usr/bin/env python3
"""Compile the entry kernels of the ahead-of-time TensorRT plugins to PTX, where the package finds them.

    python scripts/build_ptx.py [--output FOLDER] [--jobs N] [--no-check]

Needs nvcc and no GPU. PTX of one architecture runs on it and all newer ones, on drivers that know its version: nvcc 13
writes 9.0, which CUDA 12's drivers refuse, though the kernels use nothing newer than 8.3 (CUDA 12.3). So the files say
8.3, and ptxas, which refuses what a version does not have, has to accept them. They are not in version control; a wheel
built afterwards carries them. Exit codes: 0 ok, 3 nvcc is missing, 4 a source does not compile.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tmdeploy.errors import EnvironmentMissing  # noqa: E402
from tmdeploy.native.cuda import find_nvcc  # noqa: E402

SOURCES = ROOT / "plugins" / "kernels" / "cuda" / "aot"
OUTPUT = ROOT / "tmdeploy" / "tensorrt_plugin" / "ptx"
VARIANTS = (("match", "75"), ("select", "75"), ("reduce", "75"))
PTX_VERSION = "8.3"
_FLAGS = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra")


class CompileError(Exception):
    """nvcc refused a source; the message is what it said."""


def compile_ptx(nvcc: str, op: str, architecture: str, folder: Path) -> Path:
    """Write `<op>.compute_<architecture>.ptx`, whole or not at all.

    Raises:
        CompileError: nvcc failed or warned.
    """
    path = folder / f"{op}.compute_{architecture}.ptx"
    unfinished = path.with_suffix(".part")
    command = [
        nvcc,
        *_FLAGS,
        f"-arch=compute_{architecture}",
        "-ptx",
        str(SOURCES / f"{op}_entries.cu"),
        "-o",
        str(unfinished),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    if done.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise CompileError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    text = re.sub(r"^\.version .*$", f".version {PTX_VERSION}", unfinished.read_text(), count=1, flags=re.MULTILINE)
    unfinished.write_text(text)
    return unfinished.replace(path)


def check_ptx(ptxas: str, path: Path, architecture: str) -> None:
    """Let ptxas compile a file.

    Raises:
        CompileError: It refuses, or a kernel spills registers.
    """
    command = [ptxas, f"-arch=sm_{architecture}", "-v", str(path), "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    spills = [
        line for line in done.stderr.splitlines() if "spill stores" in line and " 0 bytes spill stores" not in line
    ]
    if done.returncode != 0 or spills:
        raise CompileError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def build(nvcc: str, folder: Path, jobs: int) -> list[Path]:
    """Compile all variants, `jobs` at a time.

    Raises:
        CompileError: nvcc failed or warned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return [task.result() for task in [pool.submit(compile_ptx, nvcc, *variant, folder) for variant in VARIANTS]]


def main() -> int:
    """Parse arguments and compile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--no-check", action="store_true", help="do not let ptxas compile the result")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        nvcc = find_nvcc()
    except EnvironmentMissing as error:
        print(error, file=sys.stderr)
        return error.exit_code
    try:
        paths = build(nvcc, arguments.output, arguments.jobs)
        if not arguments.no_check:
            for path in paths:
                check_ptx(str(Path(nvcc).with_name("ptxas")), path, "75")
    except CompileError as error:
        print(error, file=sys.stderr)
        return 4
    for path in paths:
        print(f"{path}  {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
