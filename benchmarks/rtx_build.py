"""Build time and peak memory of DeiT-S engines with TensorRT-RTX on this machine's CPU, and their kernels.

    python benchmarks/rtx_build.py [--json FILE] [--methods tome,evit,...] [--work DIR]

Needs the extras `export` and `rtx`. Every engine is built in a fresh process, whose peak resident memory the system
counts. Nothing is run on a GPU: this measures the builder, and counts what it plans to launch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from deit_s import make_checkpoint

from tmdeploy.system.machine import cpu_name, package_version, usable_cores

METHODS = {"none": {}, "tome": {"r": "13"}, "evit": {"keep": "0.7"}, "mstm": {}, "topk": {"keep": "0.7"}}
# precision, --profile, --schedule-range of a method that has one
VARIANTS = (("fp32", "8", False), ("fp16", "8", False), ("fp16", "1:8:32", False), ("fp16", "1:8:32", True))
RANGES = {"r": "0:13:16", "keep": "20:97:180"}


def main() -> None:
    """Export DeiT-S with every method, build every variant, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--work", type=Path, help="keep the files here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_build(json.loads(given.one))))
        return
    work = given.work or Path(tempfile.mkdtemp(prefix="rtx-build-"))
    checkpoint = work / "deit_s.pth"
    if not checkpoint.exists():
        make_checkpoint(checkpoint)
    rows = []
    for method in given.methods.split(","):
        model = _export(checkpoint, method, work)
        for precision, profile, ranged in VARIANTS:
            if ranged and method == "none":
                continue
            job = {"model": str(model), "precision": precision, "profile": profile, "ranged": ranged}
            done = subprocess.run(  # noqa: S603 - this file
                [sys.executable, __file__, "--one", json.dumps(job)], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise SystemExit(done.stderr.strip().splitlines()[-1])
            rows.append({"method": method, **job, **json.loads(done.stdout.splitlines()[-1])})
            print(_line(rows[-1]), flush=True)
    document = {
        "schema": "tmdeploy.rtx-build/1",
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "load": os.getloadavg(),
        "platform": platform.platform(),
        "tensorrt_rtx": package_version("tensorrt-rtx-cu13"),
        "rows": rows,
    }
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{document['cpu']}, {document['cores']} cores, load {document['load'][0]:.1f}; {document['tensorrt_rtx']}")


def _export(checkpoint: Path, method: str, work: Path) -> Path:
    from tmdeploy.export import ExportRequest, export_checkpoint

    output = work / f"deit_s_{method}.onnx"
    if not output.exists():
        request = ExportRequest(
            checkpoint=checkpoint,
            output=output,
            method=method,
            arch="deit_small_patch16_224",
            verify=False,
            **METHODS[method],
        )
        export_checkpoint(request)
    return output


def _build(job: dict[str, object]) -> dict[str, object]:
    """In a process of its own."""
    from tmdeploy.tensorrt.build.request import BuildRequest
    from tmdeploy.tensorrt.build.run import build_engine
    from tmdeploy.tensorrt.build.source import load_source
    from tmdeploy.tensorrt.record.profiles import parse_batch

    model = Path(str(job["model"]))
    metadata = load_source(model)[1]
    kind = metadata.schedule_input if metadata is not None else None
    ranged = RANGES[kind] if job["ranged"] and kind is not None else None
    request = BuildRequest(
        model,
        model.with_suffix(".plan"),
        flavor="rtx",
        precision=str(job["precision"]),
        profiles=(parse_batch(str(job["profile"])),),
        schedule=ranged,
    )
    record = build_engine(request).record
    kernels = record.kernels
    assert kernels is not None
    return {
        "seconds": record.build_seconds,
        "peak_mib": _peak_mib(),
        "engine_mb": round(record.bytes / 1e6, 1),
        "onnx_mb": round(model.stat().st_size / 1e6, 1),
        "kernels": kernels.total,
        "fused_attention": kernels.fused_attention,
        "steps": [[step.block, step.only, step.shared] for step in kernels.steps],
    }


def _peak_mib() -> int:
    """Peak resident memory; not ru_maxrss, which Linux carries over from the parent."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


def _line(row: dict[str, object]) -> str:
    steps = row["steps"]
    assert isinstance(steps, list)
    alone = [only for _, only, _ in steps]
    each = f"{min(alone)}-{max(alone)} a step" if alone else ""
    ranged = "schedule as input" if row["ranged"] else ""
    return (
        f"{row['method']:5} {row['precision']:4} batch {row['profile']:6} {ranged:17} {row['seconds']:6.1f} s "
        f"{row['peak_mib']:5} MiB  {row['engine_mb']:6.1f} MB  {row['kernels']:4} kernels  {each}"
    )


if __name__ == "__main__":
    main()
