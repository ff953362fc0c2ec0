"""The TensorRT plugin on the GPU, through its harness."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu.plugin_case import HarnessError, run_case
from tmdeploy.ops.reference import token_match, token_reduce, token_select

from .agreement import close, equal_plans, metric_of
from .tally import Tally


def check_plugin(harness: Path, library: Path, tally: Tally) -> list[dict[str, Any]]:
    """The plugin's interfaces, and its enqueue on CUDA buffers in a stream and in a graph."""
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
            cases: list[tuple[str, list[Tensor], list[Any], tuple[Tensor, ...]]] = [
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
