"""TokenMatch and TokenSelect on the GPU against the PyTorch reference on the CPU."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from gpu.kernel_library import DTYPES, KernelLibrary
from tmdeploy.ops.reference import token_match, token_select
from tmdeploy.ops.spec import MatchAttributes, SelectAttributes

from .agreement import equal_plans, metric_of
from .tally import Tally

_SIZES = (2, 3, 17, 64, 197, 198, 256, 257, 300, 577, 1025)
_LARGE_SIZES = (2048, 2049, 4095, 4096)


def _check_match(library: KernelLibrary, tally: Tally, metric: Tensor, removed: int, prefix: int, name: str) -> None:
    slots = metric.shape[1] - removed
    device = metric.cuda()
    for order in MatchAttributes.choices("order"):
        expected = token_match(metric, torch.arange(slots), prefix, order)
        tally.check(equal_plans(library.match(device, slots, prefix, order), expected), f"{name} {order}")
        size = library.match_workspace(device, slots, prefix)
        if size:
            workspace = torch.empty(size // 8 + 1, dtype=torch.int64, device="cuda")
            got = library.match(device, slots, prefix, order, workspace=workspace)
            tally.check(equal_plans(got, expected), f"{name} {order} spread")


def _check_select(
    library: KernelLibrary, tally: Tally, score: Tensor, metric: Tensor, kept: int, prefix: int, name: str
) -> None:
    tokens = score.shape[1]
    for leftover in SelectAttributes.choices("leftover"):
        slots = kept + (leftover == "fuse" and kept < tokens)
        vectors = metric if leftover == "nearest" else None
        count = torch.arange(kept) if leftover == "fuse" else None
        for order in SelectAttributes.choices("order"):
            expected = token_select(score, torch.arange(slots), vectors, count, prefix, leftover, order)
            device = None if vectors is None else vectors.cuda()
            got = library.select(score.cuda(), slots, device, kept, prefix, leftover, order)
            tally.check(equal_plans(got, expected), f"select N={tokens} K={kept} {leftover} {order} {name}")


def check_planners(library: KernelLibrary, tally: Tally, *, quick: bool) -> None:
    """Plans bit for bit: ties, NaN, zero and extreme norms, r = 0 and largest r, every type."""
    for tokens in _SIZES if quick else _SIZES + _LARGE_SIZES:
        batch = 3 if tokens < 600 else 1
        prefix = min(1 + tokens % 2, tokens - 1)
        limit = (tokens - prefix) // 2
        for kind in ("plain", "ties", "special"):
            for dtype in DTYPES:
                for channels in (64, 20):
                    metric = metric_of(kind, (batch, tokens, channels), tokens).to(dtype)
                    for removed in sorted({0, min(13, limit), limit}):
                        name = f"match N={tokens} C={channels} r={removed} {kind} {dtype}"
                        _check_match(library, tally, metric, removed, prefix, name)
                score = metric_of(kind, (batch, tokens, 1), tokens + 1)[..., 0].to(dtype)
                metric = metric_of(kind, (batch, tokens, 20), tokens + 2).to(dtype)
                for kept in sorted({prefix + 1, prefix + max(1, limit), tokens}):
                    _check_select(library, tally, score, metric, kept, prefix, f"{kind} {dtype}")
        print(f"planners: N = {tokens} done", file=sys.stderr)
