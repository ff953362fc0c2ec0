"""The kernels' C interface (plugins/kernels/cuda/c_api.h) on torch tensors, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tmdeploy.ops.spec import Attributes, MatchAttributes, ReduceAttributes, SelectAttributes

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class KernelError(Exception):
    """What a launcher refused, or what went wrong in the kernel."""


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def _integers(kind: type, values: Sequence[int]) -> ctypes.Array:
    return (kind * len(values))(*(int(v) for v in values))


def numbers(attributes: Attributes) -> ctypes.Array[ctypes.c_double]:
    """An op's attributes as the kernels' C interfaces take them."""
    codes = tuple(attributes.codes().values())
    return (ctypes.c_double * len(codes))(*codes)


class KernelLibrary:
    """One build of the kernels: emulated (host tensors) or real (device tensors of the current stream)."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name in ("match", "select", "reduce"):
            getattr(self._library, f"tmdeploy_cuda_{name}").restype = ctypes.c_char_p
        self._library.tmdeploy_cuda_match_workspace.restype = ctypes.c_size_t

    def seed(self, value: int) -> None:
        """Choose the emulator's schedule."""
        self._library.tmdeploy_emulator_seed(ctypes.c_uint64(value))

    @staticmethod
    def _stream(tensor: Tensor) -> ctypes.c_void_p:
        on_gpu = tensor.device.type == "cuda"
        return ctypes.c_void_p(torch.cuda.current_stream(tensor.device).cuda_stream if on_gpu else 0)

    def match_workspace(self, metric: Tensor, slots: int, num_prefix: int) -> int:
        """Bytes of device memory that a match needs."""
        dims = _integers(ctypes.c_int64, (*metric.shape, slots))
        return int(self._library.tmdeploy_cuda_match_workspace(dims, numbers(MatchAttributes(num_prefix))))

    def match(
        self, metric: Tensor, slots: int, *attributes: object, workspace: Tensor | None = None, **named: object
    ) -> tuple[Tensor, Tensor, Tensor]:
        """TokenMatch of metric [B, N, C] to map [B, N], index [B, slots], sim [B, N]."""
        batch, tokens, _ = metric.shape
        plan = torch.full((batch, tokens), -99, dtype=torch.int32, device=metric.device)
        index = torch.full((batch, max(slots, 0)), -99, dtype=torch.int32, device=metric.device)
        sim = torch.full((batch, tokens), float("nan"), device=metric.device)
        problem = self._library.tmdeploy_cuda_match(
            _integers(ctypes.c_int64, (*metric.shape, slots)),
            numbers(MatchAttributes(*attributes, **named)),
            ctypes.c_int32(DTYPES[metric.dtype]),
            _pointer(metric),
            _pointer(plan),
            _pointer(index),
            _pointer(sim),
            _pointer(workspace),
            ctypes.c_size_t(0 if workspace is None else workspace.numel() * workspace.element_size()),
            self._stream(metric),
        )
        if problem:
            raise KernelError(problem.decode())
        return plan, index, sim

    def select(
        self,
        score: Tensor,
        slots: int,
        metric: Tensor | None = None,
        kept: int | None = None,
        *attributes: object,
        **named: object,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """TokenSelect of score [B, N] to map [B, N], index [B, slots], sim [B, N], count [B]."""
        batch, tokens = score.shape
        plan = torch.full((batch, tokens), -99, dtype=torch.int32, device=score.device)
        index = torch.full((batch, max(slots, 0)), -99, dtype=torch.int32, device=score.device)
        sim = torch.full((batch, tokens), float("nan"), device=score.device)
        count = torch.full((batch,), -99, dtype=torch.int32, device=score.device)
        channels = 0 if metric is None else metric.shape[2]
        problem = self._library.tmdeploy_cuda_select(
            _integers(ctypes.c_int64, (batch, tokens, channels, slots, slots if kept is None else kept)),
            numbers(SelectAttributes(*attributes, **named)),
            ctypes.c_int32(DTYPES[score.dtype]),
            ctypes.c_int32(DTYPES[score.dtype if metric is None else metric.dtype]),
            _pointer(score),
            _pointer(metric),
            _pointer(plan),
            _pointer(index),
            _pointer(sim),
            _pointer(count),
            self._stream(score),
        )
        if problem:
            raise KernelError(problem.decode())
        return plan, index, sim, count

    def reduce(
        self, x: Tensor, plan: Tensor, index: Tensor, weight: Tensor | None = None, mode: str = "wmean"
    ) -> tuple[Tensor, Tensor]:
        """TokenReduce of x [B, N, F] to y [B, M, F], wsum [B, M]."""
        batch, tokens, features = x.shape
        slots = index.shape[1]
        y = torch.full((batch, slots, features), float("nan"), dtype=x.dtype, device=x.device)
        wsum = torch.full((batch, slots), float("nan"), device=x.device)
        problem = self._library.tmdeploy_cuda_reduce(
            _integers(ctypes.c_int64, (batch, tokens, slots, features)),
            numbers(ReduceAttributes(mode)),
            ctypes.c_int32(DTYPES[x.dtype]),
            _pointer(x),
            _pointer(plan),
            _pointer(index),
            _pointer(weight),
            _pointer(y),
            _pointer(wsum),
            self._stream(x),
        )
        if problem:
            raise KernelError(problem.decode())
        return y, wsum
