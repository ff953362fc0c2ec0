"""TokenReduce on the GPU against the PyTorch reference on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu.kernel_library import DTYPES, KernelLibrary
from tmdeploy.ops.reference import token_match, token_reduce, token_select
from tmdeploy.ops.spec import ReduceAttributes

from .agreement import close, metric_of
from .tally import Tally


def _plans(tokens: int) -> list[tuple[Tensor, Tensor]]:
    """A plan that matches and one that selects and fuses: map, index."""
    match = token_match(metric_of("plain", (2, tokens, 8), 1), torch.arange(tokens - tokens // 3), 0)
    kept = max(1, tokens // 2)
    fused = torch.arange(min(tokens, kept + 1))
    scores = metric_of("plain", (2, tokens, 1), 2)[..., 0]
    select = token_select(scores, fused, None, torch.arange(kept), 0, "fuse")
    return [match[:2], select[:2]]


def _check_modes(
    library: KernelLibrary, tally: Tally, x: Tensor, plan: Tensor, index: Tensor, weight: Tensor | None, name: str
) -> None:
    for mode in ReduceAttributes.choices("mode"):
        device = None if weight is None else weight.cuda()
        y, wsum = library.reduce(x.cuda(), plan.cuda(), index.cuda(), device, mode)
        expected, expected_sum = token_reduce(x, plan, index, weight, mode)
        # the mlerps' norms are float32 sums in another order
        scale = 16.0 if mode.startswith("mlerp") else 1.0
        good = close(y, expected, scale) and torch.equal(wsum.cpu(), expected_sum)
        tally.check(good, f"{name} {mode}{'' if weight is None else ' weighted'}")


def _check_corrupt_maps(library: KernelLibrary, tally: Tally) -> None:
    for value in (5, 2**31 - 1, -2, -(2**31)):
        x = torch.randn(2, 9, 384, device="cuda")
        plan = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, -1]] * 2, dtype=torch.int32)
        index = torch.tensor([[0, 1, 2, 3, 4]] * 2, dtype=torch.int32)
        plan[0, 3] = value
        y, wsum = library.reduce(x, plan.cuda(), index.cuda())
        good = bool(y[0].isnan().all() and wsum[0].isnan().all() and not y[1].isnan().any())
        tally.check(good, f"corrupt map {value}")


def check_reduce(library: KernelLibrary, tally: Tally, *, quick: bool) -> None:
    """Every mode, type and width within a unit in the last place, and what a corrupt plan gives."""
    for tokens in (2, 17, 197, 577) if quick else (2, 17, 197, 577, 4096):
        weight = torch.randint(0, 4, (2, tokens), generator=torch.Generator().manual_seed(3)).float()
        for plan, index in _plans(tokens):
            for features in (192, 384, 768, 1024, 40, 7):
                for dtype in DTYPES:
                    x = metric_of("plain", (2, tokens, features), features).to(dtype)
                    name = f"reduce N={tokens} M={index.shape[1]} F={features} {dtype}"
                    for w in (weight, None):
                        _check_modes(library, tally, x, plan, index, w, name)
    _check_corrupt_maps(library, tally)
