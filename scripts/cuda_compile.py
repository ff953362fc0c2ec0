#!/usr/bin/env python3
"""Compile the CUDA kernels for every supported architecture and report registers, spills and shared memory.

    python scripts/cuda_compile.py [--arch 75 --arch 90] [--json FILE] [--keep FOLDER] [--jobs N]

Exit codes: 0 ok, 1 a kernel spills, 3 nvcc is missing, 4 a source does not compile. `--keep` leaves the PTX of
compute_75 and one object an architecture there. Needs no GPU.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tmdeploy.errors import EnvironmentMissing  # noqa: E402
from tmdeploy.native.cuda import find_nvcc  # noqa: E402

KERNELS = ROOT / "plugins" / "kernels" / "cuda"
SOURCES = ("token_match.cu", "token_select.cu", "token_reduce.cu")
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
PTX = "75"
_FLAGS = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra")
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)a?'")
_SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


class CompileError(Exception):
    """nvcc refused a source; the message is what it said."""


@dataclass(frozen=True)
class KernelReport:
    """One kernel for one architecture; sizes in bytes, shared memory is the static part."""

    kernel: str
    arch: str
    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    static_shared: int


def parse_ptxas(text: str) -> list[KernelReport]:
    """Read `ptxas -v` output."""
    reports: list[KernelReport] = []
    name, arch = "", ""
    stack, stores, loads = 0, 0, 0
    for line in text.splitlines():
        if match := _ENTRY.search(line):
            name, arch = match[1], match[2]
            stack, stores, loads = 0, 0, 0
        elif match := _SPILL.search(line):
            stack, stores, loads = (int(part) for part in match.groups())
        elif name and (match := _USED.search(line)):
            reports.append(KernelReport(name, arch, int(match[1]), stores, loads, stack, int(match[2] or 0)))
            name = ""
    return reports


def readable(names: list[str]) -> list[str]:
    """C++ names of mangled ones, without arguments and namespaces; unchanged where there is no demangler."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None:
        return names
    done = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True)  # noqa: S603 - arguments are the project's own
    plain = []
    for line in done.stdout.splitlines():
        text = re.sub(r"tmdeploy::cuda::|\(anonymous namespace\)::|<unnamed>::|\((?:int)\)", "", line)
        text = re.sub(r"_INTERNAL_\w+?::|_GLOBAL__N__\w+?::", "", text)
        plain.append(re.sub(r"^void ", "", text).split("(")[0])
    return plain


def compile_source(nvcc: str, source: str, arch: str, output: Path, *, ptx: bool = False) -> list[KernelReport]:
    """Compile one source for one architecture.

    Raises:
        CompileError: nvcc failed or warned.
    """
    target = [f"-arch=compute_{arch}", "-ptx"] if ptx else [f"-arch=sm_{arch}", "-Xptxas", "-v", "-c"]
    command = [nvcc, *_FLAGS, *target, str(KERNELS / source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - arguments are the project's own
    if done.returncode != 0:
        raise CompileError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return parse_ptxas(done.stderr + done.stdout)


def compile_all(nvcc: str, architectures: tuple[str, ...], folder: Path, jobs: int) -> list[KernelReport]:
    """Compile every source for every architecture, and the PTX, in `jobs` processes at a time."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        tasks = [
            pool.submit(compile_source, nvcc, source, arch, folder / f"{Path(source).stem}.sm_{arch}.o")
            for arch in architectures
            for source in SOURCES
        ]
        tasks += [
            pool.submit(compile_source, nvcc, source, PTX, folder / f"{Path(source).stem}.compute_{PTX}.ptx", ptx=True)
            for source in SOURCES
        ]
        return [report for task in tasks for report in task.result()]


def table(reports: list[KernelReport]) -> str:
    """One row a kernel: registers for each architecture, `!` and the bytes where it spills."""
    architectures = sorted({report.arch for report in reports}, key=int)
    cells = {(report.kernel, report.arch): report for report in reports}
    kernels = list(dict.fromkeys(report.kernel for report in reports))
    names = dict(zip(kernels, readable(kernels), strict=True))
    width = max(len(name) for name in names.values())
    lines = [f"{'registers':{width}} " + " ".join(f"{'sm_' + arch:>8}" for arch in architectures)]
    for kernel in kernels:
        row = []
        for arch in architectures:
            report = cells.get((kernel, arch))
            text = "-" if report is None else str(report.registers)
            if report is not None and report.spill_stores + report.spill_loads:
                text += f"!{report.spill_stores + report.spill_loads}"
            row.append(f"{text:>8}")
        lines.append(f"{names[kernel]:{width}} " + " ".join(row))
    return "\n".join(lines)


def main() -> int:
    """Parse arguments, compile, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", action="append", help=f"compute capability without the dot; default {ARCHITECTURES}")
    parser.add_argument("--json", type=Path, help="write the numbers there; - for standard output")
    parser.add_argument("--keep", type=Path, help="leave objects and PTX in this folder")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        nvcc = find_nvcc()
    except EnvironmentMissing as error:
        print(error, file=sys.stderr)
        return error.exit_code
    architectures = tuple(arguments.arch) if arguments.arch else ARCHITECTURES
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            reports = compile_all(nvcc, architectures, folder, arguments.jobs)
        except CompileError as error:
            print(error, file=sys.stderr)
            return 4
        ptx_bytes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.ptx"))}
    spilling = [report for report in reports if report.spill_stores + report.spill_loads]
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[-1]  # noqa: S603 - arguments are the project's own
    print(table(reports), file=sys.stderr if str(arguments.json) == "-" else sys.stdout)
    if arguments.json:
        names = readable([report.kernel for report in reports])
        document = {
            "schema": "tmdeploy.cuda_compile/1",
            "nvcc": version,
            "architectures": list(architectures),
            "ptx": ptx_bytes,
            "kernels": [asdict(report) | {"kernel": name} for report, name in zip(reports, names, strict=True)],
        }
        text = json.dumps(document, indent=2) + "\n"
        if str(arguments.json) == "-":
            sys.stdout.write(text)
        else:
            arguments.json.write_text(text)
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
