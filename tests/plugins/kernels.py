"""The C interface of the native kernels, on torch tensors, with the reference's signatures."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from scripts.gpu.kernel_library import numbers
from tmdeploy.ops.spec import MatchAttributes, ReduceAttributes, SelectAttributes

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
MATCH_ORDERS = MatchAttributes.choices("order")
LEFTOVERS = SelectAttributes.choices("leftover")
SELECT_ORDERS = SelectAttributes.choices("order")
MODES = ReduceAttributes.choices("mode")


class Kernels:
    """libtmdeploy_kernels.so; every failure is a ValueError with the kernel's text."""

    def __init__(self, library: Path, threads: int = 1) -> None:
        self._library = ctypes.CDLL(str(library))
        self.threads = threads

    @property
    def instruction_set(self) -> str:
        function = self._library.tmdeploy_instruction_set
        function.restype = ctypes.c_char_p
        return function().decode()

    def token_match(
        self, metric: Tensor, slots: int, prefix: int, order: str = "tome", eps: float = 0.0, exact: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        metric = metric.contiguous()
        batch, tokens, channels = metric.shape
        plan, index, sim = _plan(batch, tokens, slots)
        self._call(
            "tmdeploy_token_match",
            *map(ctypes.c_int64, (batch, tokens, channels, slots)),
            numbers(MatchAttributes(prefix, order, eps, exact)),
            _pointer(metric),
            ctypes.c_int32(TYPES[metric.dtype]),
            *map(_pointer, (plan, index, sim)),
        )
        return plan, index, sim

    def token_select(
        self,
        score: Tensor,
        slots: int,
        prefix: int,
        leftover: str = "drop",
        order: str = "score",
        metric: Tensor | None = None,
        kept: int | None = None,
        eps: float = 0.0,
        exact: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        score = score.contiguous()
        metric = None if metric is None else metric.contiguous()
        batch, tokens = score.shape
        plan, index, sim = _plan(batch, tokens, slots)
        count = torch.full((batch,), -7, dtype=torch.int32)
        channels = 0 if metric is None else metric.shape[2]
        self._call(
            "tmdeploy_token_select",
            *map(ctypes.c_int64, (batch, tokens, channels, slots, slots if kept is None else kept)),
            numbers(SelectAttributes(prefix, leftover, order, eps, exact)),
            _pointer(score),
            ctypes.c_int32(TYPES[score.dtype]),
            _pointer(metric),
            ctypes.c_int32(0 if metric is None else TYPES[metric.dtype]),
            *map(_pointer, (plan, index, sim, count)),
        )
        return plan, index, sim, count

    def token_reduce(
        self, x: Tensor, plan: Tensor, index: Tensor, weight: Tensor | None = None, mode: str = "wmean"
    ) -> tuple[Tensor, Tensor]:
        x, plan, index = x.contiguous(), plan.contiguous(), index.contiguous()
        weight = None if weight is None else weight.contiguous()
        batch, tokens, features = x.shape
        slots = index.shape[1]
        y = torch.full((batch, slots, features), -7, dtype=x.dtype)
        wsum = torch.full((batch, slots), -7.0)
        self._call(
            "tmdeploy_token_reduce",
            *map(ctypes.c_int64, (batch, tokens, slots, features)),
            numbers(ReduceAttributes(mode)),
            _pointer(x),
            ctypes.c_int32(TYPES[x.dtype]),
            *map(_pointer, (plan, index, weight, y, wsum)),
        )
        return y, wsum

    def _call(self, name: str, *arguments: object) -> None:
        function: Callable[..., bytes | None] = getattr(self._library, name)
        function.restype = ctypes.c_char_p  # type: ignore[attr-defined]
        wrong = function(*arguments, ctypes.c_int32(self.threads))
        if wrong is not None:
            raise ValueError(wrong.decode())


def _plan(batch: int, tokens: int, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (batch, max(slots, 0))
    return (
        torch.full((batch, tokens), -7, dtype=torch.int32),
        torch.full(shape, -7, dtype=torch.int32),
        torch.full((batch, tokens), -7.0),
    )


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
