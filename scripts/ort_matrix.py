"""Exported files in versions of ONNX Runtime: opset x lowering x optimisation level x method, each against PyTorch.

Every version is installed into a folder of its own (pip, without dependencies) and run in a process of its own that
imports nothing but numpy and that version, as a user's program would. Needs the extra `export`.

    python scripts/ort_matrix.py --json docs/results/ort_matrix.json
    python scripts/ort_matrix.py --versions 1.20.1 --methods tome --opsets 20
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("tome", "evit", "topk", "mstm")
LOWERINGS = ("custom", "portable", "native")
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
ATOL = 1e-4
EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> int:
    """Export, run in every version, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", help="default: the oldest supported, two between, and the installed one")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--opsets", default="18,19,20,21,22,23")
    parser.add_argument("--lowerings", default=",".join(LOWERINGS), help="native: with the library, where there is one")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--packages", type=Path, help="folder with one folder a version; missing ones are installed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(run_jobs(json.loads((arguments.child / "jobs.json").read_text()), arguments.child)))
        return 0

    import onnxruntime

    from tmdeploy.backends.onnxruntime.packages import OLDEST
    from tmdeploy.native.library import ort_library

    versions = (arguments.versions or f"{OLDEST}.1,1.22.1,1.25.1,{onnxruntime.__version__}").split(",")
    library = ort_library()
    lowerings = [name for name in arguments.lowerings.split(",") if name != "native" or library is not None]
    with tempfile.TemporaryDirectory(prefix="tmdeploy-ort-") as temporary:
        folder = Path(temporary)
        jobs = []
        for method in arguments.methods.split(","):
            for opset in map(int, arguments.opsets.split(",")):
                made = [export(method, opset, kind, folder) for kind in lowerings if kind != "native"]
                if "native" in lowerings:
                    made.append({**export(method, opset, "custom", folder), "lowering": "native"})
                jobs += [{**job, "level": level} for job in made for level in arguments.levels.split(",")]
        document = {"jobs": jobs, "library": str(library.path) if library is not None else None}
        (folder / "jobs.json").write_text(json.dumps(document))
        rows = []
        for version in versions:
            package = None if version == onnxruntime.__version__ else package_of(version, arguments.packages)
            rows += in_version(version, package, folder)
    show(rows, versions)
    failed = [row for row in rows if row["result"] == "failed"]
    for row in failed:
        print(
            f"FAILED {row['version']} {row['method']} opset {row['opset']} {row['lowering']} {row['level']}:",
            row["why"],
        )
    if arguments.json is not None:
        found = {"schema": "tmdeploy.ort_matrix/1", "versions": versions, "atol": ATOL, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if failed else 0


def export(method: str, opset: int, lowering: str, folder: Path) -> dict[str, Any]:
    """The example checkpoint with a method, exported once, with what PyTorch makes of eight of its images.

    Two runs each: the default schedule, and nothing removed.
    """
    from tmdeploy.backends.pairing import load_samples, open_pair
    from tmdeploy.export import ExportRequest, export_checkpoint

    path = folder / f"{method}-{opset}-{lowering}.onnx"
    checkpoint = EXAMPLES / "digits_tome.pt"
    job = {"path": str(path), "method": method, "opset": opset, "lowering": lowering}
    if path.exists():
        return job
    request = ExportRequest(
        checkpoint=checkpoint, output=path, method=method, opset=opset, lowering=lowering, verify=False
    )
    export_checkpoint(request)
    expected = folder / f"{method}.npz"
    if not expected.exists():
        with open_pair(checkpoint, path, threads=1) as (ours, theirs):
            images = load_samples(theirs, [EXAMPLES / "digits"], random=0, limit=8).images
            assert theirs.metadata is not None  # noqa: S101 - it was exported with a method
            kind = theirs.metadata.schedule_input
            nothing = [0 if kind == "r" else 10**6] * len(theirs.metadata.card.reduction.layers)
            name = {f"feed_{kind}": np.asarray(nothing, dtype=np.int64)}
            np.savez(expected, images=images, default=ours.infer(images), nothing=ours.infer(images, nothing), **name)
    return job


def package_of(version: str, packages: Path | None) -> Path:
    """A folder for PYTHONPATH; pip fills it once, and keeps the wheel in its own cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (packages or base / "tmdeploy" / "onnxruntime") / version
    if not (folder / "onnxruntime").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--target", str(folder), f"onnxruntime=={version}"], check=False)  # noqa: S603
        if done.returncode != 0:
            raise SystemExit(f"onnxruntime {version} cannot be installed into {folder}")
    return folder


def in_version(version: str, package: Path | None, folder: Path) -> list[dict[str, Any]]:
    """All files in one version. A version that crashes stops everything."""
    from tmdeploy.backends.onnxruntime.packages import oldest_runtime

    environment = {**os.environ, **({} if package is None else {"PYTHONPATH": str(package)})}
    command = [sys.executable, __file__, "--child", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise SystemExit(
            f"ONNX Runtime {version}: exit code {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    rows = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        row["version"] = version
        too_new = _numbers(oldest_runtime(row["opset"])) > _numbers(version)
        row["result"] = (
            "ok" if row["why"] is None else "too new" if too_new and "opset" in row["why"].lower() else "failed"
        )
    return rows


def run_jobs(document: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """In a process with one version: load every file at its level, run it, compare. `why` is null where all is well."""
    import onnxruntime

    rows = []
    for job in document["jobs"]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, job["level"])
        if job["lowering"] == "native":
            options.register_custom_ops_library(document["library"])
        row = {key: job[key] for key in ("method", "opset", "lowering", "level")}
        try:
            session = onnxruntime.InferenceSession(job["path"], options, providers=["CPUExecutionProvider"])
            row["error"] = max(_errors(session, np.load(folder / f"{job['method']}.npz")))
            row["why"] = None if row["error"] <= ATOL else f"logits are off by {row['error']:.2g}"
        except Exception as error:  # a row of the table
            row["why"] = " ".join(str(error).split())[:400]
        rows.append(row)
    return rows


def _errors(session: Any, known: Any) -> list[float]:
    """Of the default schedule at batch 1 and 8, and of nothing removed."""
    feed = next(name for name in known.files if name.startswith("feed_"))
    images = known["images"]
    runs = (
        ({"images": images[:1]}, known["default"][:1]),
        ({"images": images}, known["default"]),
        ({"images": images, feed.removeprefix("feed_"): known[feed]}, known["nothing"]),
    )
    return [float(np.abs(session.run(None, feeds)[0] - wanted).max()) for feeds, wanted in runs]


def show(rows: list[dict[str, Any]], versions: list[str]) -> None:
    """One line a version and lowering: opsets that run, at how many levels, for every method."""
    for version in versions:
        for lowering in dict.fromkeys(row["lowering"] for row in rows):
            mine = [row for row in rows if (row["version"], row["lowering"]) == (version, lowering)]
            good = [row for row in mine if row["result"] == "ok"]
            opsets = sorted({row["opset"] for row in good})
            newer = sorted({row["opset"] for row in mine if row["result"] == "too new"})
            text = f"{len(good)} of {len(mine) - sum(row['result'] == 'too new' for row in mine)} ok"
            text += f", opset {opsets[0]} to {opsets[-1]}" if opsets else ""
            text += f"; not read by this version: {', '.join(map(str, newer))}" if newer else ""
            worst = max((row["error"] for row in good), default=0.0)
            print(f"{version:8} {lowering:9} {text}; largest logits error {worst:.1e}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


if __name__ == "__main__":
    sys.exit(main())
