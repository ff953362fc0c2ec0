"""CUDA graphs of PyTorch calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def graph_of(work: Callable[[], Any]) -> tuple[Any, Any]:
    """`work` captured in a CUDA graph, and what it returned: the tensors that a replay fills."""
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
