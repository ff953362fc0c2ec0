#!/usr/bin/env python3
"""Build the CUDA kernels and the TensorRT plugin, check them on a GPU against the CPU oracle, and time them.

    python scripts/gpu_check.py [--json FILE] [--build FOLDER] [--library FILE] [--quick] [--no-tensorrt]

1. Every kernel against the PyTorch reference on the CPU: plans bit for bit, y within one unit in the last place;
   ties, NaN, zero and extreme norms, r = 0, largest r, N from 2 to 4096, float32, float16, bfloat16; corrupt plans.
2. Every launcher captured in a CUDA graph and replayed; the result must not change.
3. The plugin's enqueue with real CUDA buffers, through plugins/tensorrt/harness.cpp, also in a graph.
4. Times of a step (match and reduce) in a CUDA graph, against eager PyTorch, torch.compile and the memory-bandwidth
   floor.

Needs a GPU, PyTorch with CUDA, and nvcc unless --library names a build. Exit codes: 0 ok, 1 a check failed, 3 no
GPU or a tool is missing, 4 the build failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_MISSING = 3
_BUILD_FAILED = 4
_UNIT = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


class CheckError(Exception):
    """The check cannot go on; carries the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Tally:
    """Counts checks and keeps the failed ones."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []

    def check(self, good: bool, what: str) -> None:
        """Count one check."""
        if good:
            self.passed += 1
        else:
            self.failed.append(what)
            print(f"FAIL {what}", file=sys.stderr)


def require_gpu() -> None:
    """Fail with one line where there is no GPU that PyTorch can use."""
    try:
        import torch
    except ImportError as error:
        raise CheckError("gpu_check needs PyTorch with CUDA", _MISSING) from error
    if not torch.cuda.is_available():
        raise CheckError(f"gpu_check needs a GPU: PyTorch {torch.__version__} sees none", _MISSING)


def build(folder: Path, *, tensorrt: bool) -> None:
    """Build kernels, and plugin and harness, for this GPU."""
    import torch

    for tool in ("cmake", "nvcc"):
        if shutil.which(tool) is None:
            raise CheckError(f"gpu_check needs {tool} on PATH to build (or --library)", _MISSING)
    major, minor = torch.cuda.get_device_capability()
    source = ROOT / "plugins" / ("tensorrt" if tensorrt else "kernels/cuda")
    options = [f"-DCMAKE_CUDA_ARCHITECTURES={major}{minor}", "-DCMAKE_BUILD_TYPE=Release"]
    if tensorrt:
        done = subprocess.run(  # noqa: S603 - arguments are the project's own
            [sys.executable, str(ROOT / "scripts" / "tensorrt_headers.py")], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CheckError(f"{done.stderr.strip()} (or --no-tensorrt)", _MISSING)
        options.append(f"-DTMDEPLOY_TENSORRT_INCLUDE={done.stdout.strip()}")
    jobs = str(os.cpu_count() or 1)
    for command in (
        ["cmake", "-S", str(source), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "-j", jobs],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - arguments are the project's own
        if done.returncode != 0:
            raise CheckError(f"{' '.join(command)}\n{done.stdout}{done.stderr}", _BUILD_FAILED)


def find(folder: Path, name: str) -> Path:
    """The one file of that name below `folder`."""
    found = sorted(path for path in folder.rglob(name) if path.is_file())
    if not found:
        raise CheckError(f"the build left no {name} in {folder}", _BUILD_FAILED)
    return found[0]


def metric_of(kind: str, shape: tuple[int, int, int], seed: int) -> Any:
    """A metric [B, N, C] on the CPU: plain, full of exact ties, or with special values."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if kind == "ties":
        return torch.randint(-2, 3, shape, generator=generator).float()
    values = torch.randn(shape, generator=generator)
    if kind == "special":
        tokens = shape[1]
        values[0, tokens // 2] = float("nan")
        values[0, tokens // 3] = 0.0
        values[0, tokens // 4] *= 1e-30
        values[0, tokens // 5] = float("inf")
        values[0, -1] *= 1e30
    return values


def equal_plans(got: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Bit-equal plans, `got` on the GPU."""
    import torch

    return all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


def close(y: Any, expected: Any, scale: float = 1.0) -> bool:
    """Within `scale` units in the last place of the values' type, NaN where NaN."""
    import torch

    y = y.cpu()
    if not torch.equal(y.isnan(), expected.isnan()):
        return False
    unit = _UNIT[str(y.dtype).removeprefix("torch.")] * scale
    return torch.allclose(y.double(), expected.double(), rtol=unit, atol=1e-30, equal_nan=True)


def check_planners(library: Any, tally: Tally, *, quick: bool) -> None:
    """TokenMatch and TokenSelect against the reference."""
    import torch

    from tests.plugins.cuda.kernel_library import LEFTOVERS, MATCH_ORDERS, SELECT_ORDERS
    from tmdeploy.ops.reference import token_match, token_select

    sizes = [2, 3, 17, 64, 197, 198, 256, 257, 300, 577, 1025] + ([] if quick else [2048, 2049, 4095, 4096])
    for tokens in sizes:
        batch = 3 if tokens < 600 else 1
        prefix = min(1 + tokens % 2, tokens - 1)
        limit = (tokens - prefix) // 2
        for kind in ("plain", "ties", "special"):
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for channels in (64, 20):
                    metric = metric_of(kind, (batch, tokens, channels), tokens).to(dtype)
                    for removed in sorted({0, min(13, limit), limit}):
                        for order in MATCH_ORDERS:
                            slots = tokens - removed
                            name = f"match N={tokens} C={channels} r={removed} {kind} {dtype} {order}"
                            expected = token_match(metric, torch.arange(slots), prefix, order)
                            device = metric.cuda()
                            tally.check(equal_plans(library.match(device, slots, prefix, order), expected), name)
                            size = library.match_workspace(device, slots, prefix)
                            if size:
                                workspace = torch.empty(size // 8 + 1, dtype=torch.int64, device="cuda")
                                got = library.match(device, slots, prefix, order, workspace=workspace)
                                tally.check(equal_plans(got, expected), f"{name} spread")
                score = metric_of(kind, (batch, tokens, 1), tokens + 1)[..., 0].to(dtype)
                metric = metric_of(kind, (batch, tokens, 20), tokens + 2).to(dtype)
                for kept in sorted({prefix + 1, prefix + max(1, limit), tokens}):
                    for leftover in LEFTOVERS:
                        for order in SELECT_ORDERS:
                            slots = kept + (leftover == "fuse" and kept < tokens)
                            vectors = metric if leftover == "nearest" else None
                            count = torch.arange(kept) if leftover == "fuse" else None
                            expected_select = token_select(
                                score, torch.arange(slots), vectors, count, prefix, leftover, order
                            )
                            got_select = library.select(
                                score.cuda(),
                                slots,
                                None if vectors is None else vectors.cuda(),
                                kept,
                                prefix,
                                leftover,
                                order,
                            )
                            name = f"select N={tokens} K={kept} {leftover} {order} {kind} {dtype}"
                            tally.check(equal_plans(got_select, expected_select), name)
        print(f"planners: N = {tokens} done", file=sys.stderr)


def check_reduce(library: Any, tally: Tally, *, quick: bool) -> None:
    """TokenReduce against the reference, and corrupt plans."""
    import torch

    from tests.plugins.cuda.kernel_library import MODES
    from tmdeploy.ops.reference import token_match, token_reduce, token_select

    for tokens in [2, 17, 197, 577] + ([] if quick else [4096]):
        match_plan = token_match(metric_of("plain", (2, tokens, 8), 1), torch.arange(tokens - tokens // 3), 0)[:2]
        kept = max(1, tokens // 2)
        fused = torch.arange(min(tokens, kept + 1))
        scores = metric_of("plain", (2, tokens, 1), 2)[..., 0]
        select_plan = token_select(scores, fused, None, torch.arange(kept), 0, "fuse")[:2]
        weight = torch.randint(0, 4, (2, tokens), generator=torch.Generator().manual_seed(3)).float()
        for plan, index in (match_plan, select_plan):
            for features in (192, 384, 768, 1024, 40, 7):
                for dtype in (torch.float32, torch.float16, torch.bfloat16):
                    x = metric_of("plain", (2, tokens, features), features).to(dtype)
                    for mode in MODES:
                        for w in (weight, None):
                            y, wsum = library.reduce(
                                x.cuda(), plan.cuda(), index.cuda(), None if w is None else w.cuda(), mode
                            )
                            expected, expected_sum = token_reduce(x, plan, index, w, mode)
                            # the mlerps' norms are float32 sums in another order
                            scale = 16.0 if mode.startswith("mlerp") else 1.0
                            name = f"reduce N={tokens} M={index.shape[1]} F={features} {dtype} {mode}"
                            good = close(y, expected, scale) and torch.equal(wsum.cpu(), expected_sum)
                            tally.check(good, f"{name}{'' if w is None else ' weighted'}")
    for value in (5, 2**31 - 1, -2, -(2**31)):
        x = torch.randn(2, 9, 384, device="cuda")
        plan = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, -1]] * 2, dtype=torch.int32)
        index = torch.tensor([[0, 1, 2, 3, 4]] * 2, dtype=torch.int32)
        plan[0, 3] = value
        y, wsum = library.reduce(x, plan.cuda(), index.cuda())
        good = bool(y[0].isnan().all() and wsum[0].isnan().all() and not y[1].isnan().any())
        tally.check(good, f"corrupt map {value}")


def graph_of(work: Callable[[], Any]) -> tuple[Any, Any]:
    """`work` captured in a CUDA graph, and what it returned: the tensors that a replay fills."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph, results


def microseconds(call: Callable[[], Any], runs: int = 30, repeats: int = 20) -> float:
    """Median GPU time of one call, between events around `repeats` calls."""
    import torch

    for _ in range(5):
        call()
    times = []
    for _ in range(runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000.0 / repeats)
    return statistics.median(times)


def check_graphs(library: Any, tally: Tally) -> None:
    """A captured step replays on new data, without allocation or synchronisation by the kernels."""
    import torch

    from tmdeploy.ops.reference import token_match, token_reduce

    for tokens, channels in ((197, 64), (577, 64)):
        slots = tokens - 13
        metric = torch.randn(4, tokens, channels, device="cuda")
        x = torch.randn(4, tokens, 384, device="cuda").half()
        size = library.match_workspace(metric, slots, 1)
        workspace = torch.empty(size // 8 + 1, dtype=torch.int64, device="cuda") if size else None

        def step(metric: Any = metric, x: Any = x, slots: int = slots, workspace: Any = workspace) -> Any:
            plan, index, sim = library.match(metric, slots, workspace=workspace)
            return plan, index, sim, *library.reduce(x, plan, index)

        graph, results = graph_of(step)
        metric.copy_(torch.randn(metric.shape))
        graph.replay()
        torch.cuda.synchronize()
        expected = token_match(metric.cpu(), torch.arange(slots))
        tally.check(equal_plans(results[:3], expected), f"graph: plan of N={tokens}")
        y, _ = token_reduce(x.cpu(), *expected[:2])
        tally.check(close(results[3], y), f"graph: y of N={tokens}")


def bandwidth() -> float:
    """Bytes per second of a large copy on this GPU, reads and writes counted."""
    import torch

    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (microseconds(lambda: target.copy_(source), 10, 5) * 1e-6)


def eager_step(metric: Any, x: Any, size: Any, removed: int) -> tuple[Any, Any]:
    """The same step in plain PyTorch: what a model without native kernels runs (P = 1)."""
    import torch

    tokens = x.shape[1]
    unit = metric / metric.norm(dim=-1, keepdim=True)
    similarity = unit[:, 2::2] @ unit[:, 1::2].transpose(1, 2)
    best, partner = similarity.max(-1)
    ranked = best.argsort(-1, descending=True)
    source, kept = ranked[:, :removed], ranked[:, removed:].sort(-1).values
    weighted = x * size[..., None]
    a, b = weighted[:, 2::2], weighted[:, 1::2]
    a_size, b_size = size[:, 2::2], size[:, 1::2]
    features = x.shape[-1]
    target = partner.gather(1, source)
    moved = a.gather(1, source[..., None].expand(-1, -1, features))
    merged = b.scatter_add(1, target[..., None].expand(-1, -1, features), moved)
    merged_size = b_size.scatter_add(1, target, a_size.gather(1, source))
    stayed = a.gather(1, kept[..., None].expand(-1, -1, features))
    new = torch.cat([weighted[:, :1], stayed, merged], 1)
    new_size = torch.cat([size[:, :1], a_size.gather(1, kept), merged_size], 1)
    assert new.shape[1] == tokens - removed  # noqa: S101 - shapes are fixed
    return new / new_size[..., None], new_size


def time_steps(library: Any, *, quick: bool) -> list[dict[str, Any]]:
    """Times of a ToMe step for ViT shapes, in microseconds, with the floor that memory and launches set."""
    import torch

    bytes_per_second = bandwidth()
    nothing = torch.zeros(1, device="cuda")
    empty, _ = graph_of(lambda: nothing.add_(1))
    launch_us = microseconds(empty.replay)
    rows = []
    compiled = torch.compile(eager_step)
    shapes = [(1, 197, 384), (64, 197, 384)] + (
        [] if quick else [(64, 197, 192), (64, 197, 768), (32, 577, 1024), (1, 4096, 384)]
    )
    for batch, tokens, features in shapes:
        removed = 13
        slots = tokens - removed
        metric = torch.randn(batch, tokens, 64, device="cuda").half()
        x = torch.randn(batch, tokens, features, device="cuda").half()
        size = torch.ones(batch, tokens, device="cuda")
        need = library.match_workspace(metric, slots, 1)
        workspace = torch.empty(need // 8 + 1, dtype=torch.int64, device="cuda") if need else None

        def match(metric: Any = metric, slots: int = slots, workspace: Any = workspace) -> Any:
            return library.match(metric, slots, workspace=workspace)

        plan, index, _ = match()

        def reduce(x: Any = x, plan: Any = plan, index: Any = index, size: Any = size) -> Any:
            return library.reduce(x, plan, index, size)

        def step(x: Any = x, size: Any = size, match: Callable[[], Any] = match) -> Any:
            plan, index, _ = match()
            return library.reduce(x, plan, index, size)

        def eager(metric: Any = metric, x: Any = x, size: Any = size, slots: int = slots) -> Any:
            return eager_step(metric.float(), x, size, x.shape[1] - slots)

        def compiled_step(metric: Any = metric, x: Any = x, size: Any = size, slots: int = slots) -> Any:
            return compiled(metric.float(), x, size, x.shape[1] - slots)

        # the wrapper fills its outputs first, so that an unwritten one shows: their fills are timed alone and taken off
        def fills(plan_part: bool, batch: int = batch, tokens: int = tokens, slots: int = slots, x: Any = x) -> Any:
            if plan_part:
                return (
                    torch.full((batch, tokens), -99, dtype=torch.int32, device="cuda"),
                    torch.full((batch, slots), -99, dtype=torch.int32, device="cuda"),
                    torch.full((batch, tokens), float("nan"), device="cuda"),
                )
            return (
                torch.full((batch, slots, x.shape[2]), float("nan"), dtype=x.dtype, device="cuda"),
                torch.full((batch, slots), float("nan"), device="cuda"),
            )

        match_fill, _ = graph_of(lambda fills=fills: fills(True))
        reduce_fill, _ = graph_of(lambda fills=fills: fills(False))
        step_fill, _ = graph_of(lambda fills=fills: (fills(True), fills(False)))
        match_graph, _ = graph_of(match)
        reduce_graph, _ = graph_of(reduce)
        step_graph, _ = graph_of(step)
        moved = metric.numel() * 2 + (tokens + slots) * batch * features * 2 + batch * (tokens * 16 + slots * 12)
        floor_us = moved / bytes_per_second * 1e6 + 2 * launch_us
        row = {
            "batch": batch,
            "tokens": tokens,
            "features": features,
            "removed": removed,
            "dtype": "float16",
            "match_us": microseconds(match_graph.replay) - microseconds(match_fill.replay),
            "reduce_us": microseconds(reduce_graph.replay) - microseconds(reduce_fill.replay),
            "step_us": microseconds(step_graph.replay) - microseconds(step_fill.replay),
            "eager_us": microseconds(eager),
            "compile_us": microseconds(compiled_step),
            "floor_us": floor_us,
        }
        row["step_over_floor"] = row["step_us"] / floor_us
        row["eager_over_step"] = row["eager_us"] / row["step_us"]
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    rows.append({"launch_us": launch_us, "copy_bytes_per_s": bytes_per_second})
    return rows


def check_plugin(harness: Path, library: Path, tally: Tally) -> list[dict[str, Any]]:
    """The plugin's interfaces, and its enqueue on CUDA buffers in a stream and in a graph."""
    import torch

    from tests.plugins.cuda.plugin_case import HarnessError, run_case
    from tmdeploy.ops.reference import token_match, token_reduce, token_select

    done = subprocess.run([str(harness), str(library), "check"], capture_output=True, text=True, check=False)  # noqa: S603 - arguments are the project's own
    tally.check(done.returncode == 0, "plugin: interfaces")
    measured: list[dict[str, Any]] = []
    int32, float32 = torch.int32, torch.float32
    for batch, tokens, removed in ((1, 197, 13), (64, 197, 13), (2, 4096, 700)):
        slots = tokens - removed
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            metric = metric_of("plain", (batch, tokens, 64), tokens).to(dtype)
            x = metric_of("plain", (batch, tokens, 384), 1).to(dtype)
            score, count = metric[..., 0].contiguous(), torch.arange(slots)
            plan = token_match(metric, count)
            weight = torch.ones(batch, tokens)
            shapes = [(int32, (batch, tokens)), (int32, (batch, slots)), (float32, (batch, tokens))]
            y_shapes = [(dtype, (batch, slots, 384)), (float32, (batch, slots))]
            cases: list[tuple[str, list[Any], list[Any], tuple[Any, ...]]] = [
                ("TokenMatch", [metric, count], shapes, plan),
                ("TokenSelect", [score, count], [*shapes, (int32, (batch,))], token_select(score, count)),
                ("TokenReduce", [x, *plan[:2], weight], y_shapes, token_reduce(x, *plan[:2], weight)),
            ]
            for op, inputs, outputs, expected in cases:
                name = f"plugin: {op} B={batch} N={tokens} {dtype}"
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        got, numbers = run_case(harness, library, Path(folder), op, {}, inputs, outputs)
                    except HarnessError as error:
                        tally.check(False, f"{name}: {error}")
                        continue
                good = close(got[0], expected[0]) if op == "TokenReduce" else equal_plans(tuple(got), expected)
                tally.check(good and numbers["graph_equals_stream"], name)
                measured.append({"op": op, "batch": batch, "tokens": tokens, "dtype": str(dtype), **numbers})
    return measured


def machine() -> dict[str, Any]:
    """GPU, driver and versions."""
    import torch

    driver = "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().split("\n")[0]  # noqa: S603 - arguments are the project's own
    return {
        "gpu": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def main() -> int:
    """Run everything; print a summary, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write results there")
    parser.add_argument("--build", type=Path, help="build folder; default: a temporary one")
    parser.add_argument("--library", type=Path, help="a libtmdeploy_cuda.so that is built; implies --no-tensorrt")
    parser.add_argument("--no-tensorrt", action="store_true", help="leave the plugin out")
    parser.add_argument("--no-timing", action="store_true", help="checks only")
    parser.add_argument("--quick", action="store_true", help="up to 1025 tokens, fewer shapes to time")
    arguments = parser.parse_args()
    tensorrt = not (arguments.no_tensorrt or arguments.library)
    tally = Tally()
    try:
        require_gpu()
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.build or Path(temporary)
            if arguments.library is None:
                build(folder, tensorrt=tensorrt)
            from tests.plugins.cuda.kernel_library import KernelLibrary

            library = KernelLibrary(arguments.library or find(folder, "libtmdeploy_cuda.so"))
            check_planners(library, tally, quick=arguments.quick)
            check_reduce(library, tally, quick=arguments.quick)
            check_graphs(library, tally)
            plugin = []
            if tensorrt:
                harness = find(folder, "tmdeploy_tensorrt_harness")
                plugin = check_plugin(harness, find(folder, "libtmdeploy_tensorrt.so"), tally)
            times = [] if arguments.no_timing else time_steps(library, quick=arguments.quick)
    except CheckError as error:
        print(error, file=sys.stderr)
        return error.code
    document = {
        "schema": "tmdeploy.gpu_check/1",
        "machine": machine(),
        "passed": tally.passed,
        "failed": tally.failed,
        "plugin": plugin,
        "times": times,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{tally.passed} checks passed, {len(tally.failed)} failed on {document['machine']['gpu']}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
