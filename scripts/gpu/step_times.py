"""Times of a merge step, next to plain and compiled PyTorch and to the floor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpu.kernel_library import KernelLibrary

from .clock import bandwidth, microseconds
from .cuda_graph import graph_of


def eager_step(metric: Tensor, x: Tensor, size: Tensor, removed: int) -> tuple[Tensor, Tensor]:
    """The same step in plain PyTorch: what a model without native kernels runs (P = 1)."""
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


def _graph_us(work: Callable[[], Any]) -> float:
    graph, _ = graph_of(work)
    return microseconds(graph.replay)


def _time_step(
    library: KernelLibrary,
    compiled: Callable[..., Any],
    shape: tuple[int, int, int],
    bytes_per_second: float,
    launch_us: float,
) -> dict[str, Any]:
    batch, tokens, features = shape
    removed = 13
    slots = tokens - removed
    metric = torch.randn(batch, tokens, 64, device="cuda").half()
    x = torch.randn(batch, tokens, features, device="cuda").half()
    size = torch.ones(batch, tokens, device="cuda")
    need = library.match_workspace(metric, slots, 1)
    workspace = torch.empty(need // 8 + 1, dtype=torch.int64, device="cuda") if need else None

    def match() -> tuple[Tensor, ...]:
        return library.match(metric, slots, workspace=workspace)

    plan, index, _ = match()

    def reduce() -> tuple[Tensor, ...]:
        return library.reduce(x, plan, index, size)

    def step() -> tuple[Tensor, ...]:
        new_plan, new_index, _ = match()
        return library.reduce(x, new_plan, new_index, size)

    # the wrapper fills its outputs first, so that an unwritten one shows: their fills are timed alone and taken off
    def match_fills() -> tuple[Tensor, ...]:
        return (
            torch.full((batch, tokens), -99, dtype=torch.int32, device="cuda"),
            torch.full((batch, slots), -99, dtype=torch.int32, device="cuda"),
            torch.full((batch, tokens), float("nan"), device="cuda"),
        )

    def reduce_fills() -> tuple[Tensor, ...]:
        return (
            torch.full((batch, slots, features), float("nan"), dtype=x.dtype, device="cuda"),
            torch.full((batch, slots), float("nan"), device="cuda"),
        )

    moved = metric.numel() * 2 + (tokens + slots) * batch * features * 2 + batch * (tokens * 16 + slots * 12)
    floor_us = moved / bytes_per_second * 1e6 + 2 * launch_us
    row: dict[str, Any] = {
        "batch": batch,
        "tokens": tokens,
        "features": features,
        "removed": removed,
        "dtype": "float16",
        "match_us": _graph_us(match) - _graph_us(match_fills),
        "reduce_us": _graph_us(reduce) - _graph_us(reduce_fills),
        "step_us": _graph_us(step) - _graph_us(lambda: (match_fills(), reduce_fills())),
        "eager_us": microseconds(lambda: eager_step(metric.float(), x, size, removed)),
        "compile_us": microseconds(lambda: compiled(metric.float(), x, size, removed)),
        "floor_us": floor_us,
    }
    row["step_over_floor"] = row["step_us"] / floor_us
    row["eager_over_step"] = row["eager_us"] / row["step_us"]
    return row


def time_steps(library: KernelLibrary, *, quick: bool) -> list[dict[str, Any]]:
    """Times of a ToMe step for ViT shapes, in microseconds, with the floor that memory and launches set."""
    bytes_per_second = bandwidth()
    nothing = torch.zeros(1, device="cuda")
    launch_us = _graph_us(lambda: nothing.add_(1))
    rows: list[dict[str, Any]] = []
    compiled = torch.compile(eager_step)
    shapes = [(1, 197, 384), (64, 197, 384)] + (
        [] if quick else [(64, 197, 192), (64, 197, 768), (32, 577, 1024), (1, 4096, 384)]
    )
    for shape in shapes:
        row = _time_step(library, compiled, shape, bytes_per_second, launch_us)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    rows.append({"launch_us": launch_us, "copy_bytes_per_s": bytes_per_second})
    return rows
