"""Test data on the CPU, and whether what the GPU made of it is the reference's result."""

from __future__ import annotations

import torch
from torch import Tensor

_UNIT = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def metric_of(kind: str, shape: tuple[int, int, int], seed: int) -> Tensor:
    """A metric [B, N, C] on the CPU: plain, full of exact ties, or with special values."""
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


def equal_plans(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Bit-equal plans, `got` on the GPU."""
    return all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


def close(y: Tensor, expected: Tensor, scale: float = 1.0) -> bool:
    """Within `scale` units in the last place of the values' type, NaN where NaN."""
    y = y.cpu()
    if not torch.equal(y.isnan(), expected.isnan()):
        return False
    unit = _UNIT[y.dtype] * scale
    return torch.allclose(y.double(), expected.double(), rtol=unit, atol=1e-30, equal_nan=True)
