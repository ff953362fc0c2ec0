"""Function bodies against native kernels, op by op, and the native model against a merge that costs nothing.

Per-op times come from ONNX Runtime's own profile; the nodes of a function body carry names by which the profile shows
whose they are. All sessions run in one process, call by call in turn; medians over the calls.

    python benchmarks/native_ops.py --json native_ops.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, parse
from tmdeploy.graph.twins import MakeTwin
from tmdeploy.native.library import ort_library
from tmdeploy.ops import DOMAIN
from tmdeploy.system.machine import cpu_name, usable_cores

WARM_UP = 5
OPS = ("TokenMatch", "TokenSelect", "TokenReduce")


def main() -> None:
    """Parse the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="an exported file with the custom lowering; default: DeiT-S ToMe r=13"
    )
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--calls", type=int, default=30, help="profiled calls, and rounds of the whole-model comparison"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    library = ort_library()
    if library is None:
        raise SystemExit("no native library: build it with tmdeploy plugins build")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or export_deit_small(Path(folder))
        model = onnx.load(str(path))
        metadata = parse(next(p.value for p in model.metadata_props if p.key == METADATA_KEY), path=str(path))
        results = []
        for batch in (int(text) for text in arguments.batch.split(",")):
            images = images_of(metadata, batch)
            result: dict[str, Any] = {"batch": batch}
            result["ops"] = per_op(model, Path(folder), images, arguments.threads, arguments.calls)
            result["model"] = whole_model(path, model, metadata, images, arguments.threads, arguments.calls)
            results.append(result)
            show(result)
    if arguments.json is not None:
        document = {
            "schema": "tmdeploy.native_ops/1",
            "cpu": cpu_name(),
            "cores": usable_cores(),
            "threads": arguments.threads,
            "load": os.getloadavg()[0],
            "library": str(library.path),
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def export_deit_small(folder: Path) -> Path:
    """DeiT-S with ToMe r=13."""
    from deit_s import make_checkpoint

    from tmdeploy.export import ExportRequest, export_checkpoint

    output = folder / "deit_small_tome.onnx"
    checkpoint = make_checkpoint(folder / "deit_small.pth")
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, method="tome", r="13", verify=False))
    return output


def images_of(metadata: ArtifactMetadata, batch: int) -> np.ndarray:
    """[batch, 3, H, W] f32, seeded."""
    height, width = metadata.card.preprocessing.image_size
    return np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)


def per_op(model: onnx.ModelProto, folder: Path, images: np.ndarray, threads: int, calls: int) -> list[dict[str, Any]]:
    """Time of each op a call, microseconds, summed over the model's steps: function body, native, ratio."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    name_steps(named)
    profiles = {}
    sessions = {kind: profiled_session(named, folder, kind == "native", threads) for kind in ("body", "native")}
    for _ in range(calls + WARM_UP):
        for session in sessions.values():
            session.run(None, {"images": images})
    for kind, session in sessions.items():
        profiles[kind] = op_times(Path(session.end_profiling()), calls)
    rows = []
    for op in OPS:
        if op in profiles["native"]:
            body, native = profiles["body"][op], profiles["native"][op]
            rows.append({"op": op, "body_us": body, "native_us": native, "ratio": body / native})
    body, native = (sum(profile.values()) for profile in (profiles["body"], profiles["native"]))
    rows.append({"op": "all steps", "body_us": body, "native_us": native, "ratio": body / native})
    return rows


def name_steps(model: onnx.ModelProto) -> None:
    """Give the op nodes and the nodes of their bodies names by which the profile shows whose they are."""
    for function in model.functions:
        if function.domain == DOMAIN:
            for position, node in enumerate(function.node):
                node.name = f"body_{function.name}_{position}"
    for position, node in enumerate(model.graph.node):
        if node.domain == DOMAIN:
            node.name = f"op_{node.op_type}_{position}"


def profiled_session(model: onnx.ModelProto, folder: Path, native: bool, threads: int) -> Any:
    """A session that writes a profile."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / ("native" if native else "body"))
    if native:
        library = ort_library()
        assert library is not None
        options.register_custom_ops_library(str(library.path))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def op_times(profile: Path, calls: int) -> dict[str, float]:
    """Median over the last calls of the microseconds spent in each op's nodes."""
    events = [event for event in json.loads(profile.read_text()) if event.get("cat") == "Node"]
    runs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if name == event["name"]:
            continue
        op = next((op for op in OPS if f"body_{op}_" in name or f"op_{op}_" in name), None)
        if op is not None:
            runs[op].append((event["ts"], event["dur"]))
    medians = {}
    for op, times in runs.items():
        total = len(times)
        each = total // (calls + WARM_UP)
        durations = [dur for _, dur in sorted(times)]
        sums = [sum(durations[i * each : (i + 1) * each]) for i in range(WARM_UP, calls + WARM_UP)]
        medians[op] = statistics.median(sums)
    return medians


def whole_model(
    path: Path, model: onnx.ModelProto, metadata: ArtifactMetadata, images: np.ndarray, threads: int, rounds: int
) -> dict[str, float]:
    """Median milliseconds a call, and the medians of the ratios within a round."""
    twins = {kind: MakeTwin(kind, metadata)(model)[0].SerializeToString() for kind in ("unmerged", "free-merge")}
    kinds: dict[str, dict[str, Any]] = {"native": {}, "bodies": {"native": False}}
    kinds |= {kind: {"model": twin} for kind, twin in twins.items()}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    with ExitStack() as opened:
        runners = {
            name: opened.enter_context(OnnxRuntimeRunner(path, threads=threads, **options))
            for name, options in kinds.items()
        }
        for turn in range(rounds + 3):
            order = list(runners.items())
            for name, runner in order if turn % 2 else reversed(order):  # neither always runs in the other's wake
                start = time.perf_counter()
                runner.infer(images)
                if turn >= 3:
                    times[name].append((time.perf_counter() - start) * 1e3)
    result = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    for other in ("free-merge", "bodies", "unmerged"):
        ratios = [a / b for a, b in zip(times["native"], times[other], strict=True)]
        result[f"native_over_{other}"] = statistics.median(ratios)
    return result


def show(result: dict[str, Any]) -> None:
    """Print one batch size."""
    print(f"batch {result['batch']}")
    for row in result["ops"]:
        print(
            f"  {row['op']:12} body {row['body_us']:9.0f} us   native {row['native_us']:8.0f} us   {row['ratio']:5.1f}x"
        )
    for name, value in result["model"].items():
        print(f"  {name:28} {value:8.3f}")


if __name__ == "__main__":
    main()
