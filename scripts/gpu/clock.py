"""GPU times."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch


def microseconds(call: Callable[[], Any], runs: int = 30, repeats: int = 20) -> float:
    """Median GPU time of one call, between events around `repeats` calls."""
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


def bandwidth() -> float:
    """Bytes per second of a large copy on this GPU, reads and writes counted."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (microseconds(lambda: target.copy_(source), 10, 5) * 1e-6)
