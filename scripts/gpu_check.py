#!/usr/bin/env python3
"""Everything that needs a GPU, in one call: kernels, plugin, engines, ONNX Runtime's GPU providers.

    python scripts/gpu_check.py [--json FILE] [--build FOLDER] [--library FILE] [--quick] [--no-tensorrt]
                                [--no-kernels] [--no-engines]

1. Every kernel against the PyTorch reference on the CPU: plans bit for bit, y within one unit in the last place;
   ties, NaN, zero and extreme norms, r = 0, largest r, N from 2 to 4096, float32, float16, bfloat16; corrupt plans.
2. Every launcher captured in a CUDA graph and replayed; the result must not change.
3. The plugin's enqueue with real CUDA buffers, through plugins/tensorrt/harness/, also in a graph.
4. Times of a step (match and reduce) in a CUDA graph, against eager PyTorch, torch.compile and the memory-bandwidth
   floor.
5. `tmdeploy build`, `validate`, `inspect --profile` and `bench --engine` of DeiT-S, unmerged and with ToMe and runtime
   r, with each TensorRT that is installed; validate and bench with ONNX Runtime's CUDA and TensorRT providers. What is
   not installed is reported.

Needs a GPU, PyTorch with CUDA, and nvcc unless --library names a build. Exit codes: 0 ok, 1 a check failed, 3 no
GPU or a tool is missing, 4 the build failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu.machine import machine, require_gpu
from gpu.stop import CheckError
from gpu.tally import Tally

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests and tmdeploy, from a checkout


def main() -> int:
    """Run everything; print a summary, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write results there")
    parser.add_argument("--build", type=Path, help="build folder; default: a temporary one")
    parser.add_argument("--library", type=Path, help="a libtmdeploy_cuda.so that is built; implies --no-tensorrt")
    parser.add_argument("--no-tensorrt", action="store_true", help="leave the plugin out")
    parser.add_argument("--no-timing", action="store_true", help="checks only")
    parser.add_argument("--no-kernels", action="store_true", help="leave the kernels and the plugin out")
    parser.add_argument("--no-engines", action="store_true", help="leave engines and ONNX Runtime out")
    parser.add_argument("--quick", action="store_true", help="up to 1025 tokens, fewer shapes to time, fewer engines")
    arguments = parser.parse_args()
    tally = Tally()
    found: dict[str, Any] = {"plugin": [], "times": [], "engines": []}
    try:
        require_gpu()
        with tempfile.TemporaryDirectory() as temporary:
            if not arguments.no_kernels:
                found.update(_kernels(arguments, Path(temporary), tally))
            if not arguments.no_engines:
                from gpu.engine_checks import check_engines

                work = Path(temporary) / "engines"
                work.mkdir()
                found["engines"] = check_engines(work, tally, quick=arguments.quick)
    except CheckError as error:
        print(error, file=sys.stderr)
        return error.code
    document = {
        "schema": "tmdeploy.gpu_check/1",
        "machine": machine(),
        "passed": tally.passed,
        "failed": tally.failed,
        **found,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{tally.passed} checks passed, {len(tally.failed)} failed on {document['machine']['gpu']}")
    return 1 if tally.failed else 0


def _kernels(arguments: argparse.Namespace, temporary: Path, tally: Tally) -> dict[str, Any]:
    """Build, check and time kernels and plugin."""
    from gpu.build import build, find
    from gpu.graph_checks import check_graphs
    from gpu.kernel_library import KernelLibrary
    from gpu.planner_checks import check_planners
    from gpu.plugin_checks import check_plugin
    from gpu.reduce_checks import check_reduce
    from gpu.step_times import time_steps

    tensorrt = not (arguments.no_tensorrt or arguments.library)
    folder = arguments.build or temporary / "build"
    if arguments.library is None:
        build(folder, tensorrt=tensorrt)
    library = KernelLibrary(arguments.library or find(folder, "libtmdeploy_cuda.so"))
    check_planners(library, tally, quick=arguments.quick)
    check_reduce(library, tally, quick=arguments.quick)
    check_graphs(library, tally)
    plugin = []
    if tensorrt:
        harness = find(folder, "tmdeploy_tensorrt_harness")
        plugin = check_plugin(harness, find(folder, "libtmdeploy_tensorrt.so"), tally)
    times = [] if arguments.no_timing else time_steps(library, quick=arguments.quick)
    return {"plugin": plugin, "times": times}


if __name__ == "__main__":
    sys.exit(main())
