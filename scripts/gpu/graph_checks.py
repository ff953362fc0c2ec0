"""Launchers in a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu.kernel_library import KernelLibrary
from tmdeploy.ops.reference import token_match, token_reduce

from .agreement import close, equal_plans
from .cuda_graph import graph_of
from .tally import Tally


def _check_graph(library: KernelLibrary, tally: Tally, tokens: int, channels: int) -> None:
    slots = tokens - 13
    metric = torch.randn(4, tokens, channels, device="cuda")
    x = torch.randn(4, tokens, 384, device="cuda").half()
    size = library.match_workspace(metric, slots, 1)
    workspace = torch.empty(size // 8 + 1, dtype=torch.int64, device="cuda") if size else None

    def step() -> tuple[Tensor, ...]:
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


def check_graphs(library: KernelLibrary, tally: Tally) -> None:
    """A captured step replays on new data, without allocation or synchronisation by the kernels."""
    for tokens in (197, 577):
        _check_graph(library, tally, tokens, 64)
