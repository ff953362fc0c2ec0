"""The planners' device code, run by the emulator, gives the reference's plans bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.gpu.kernel_library import KernelError, KernelLibrary
from tests.ops.strategies import DTYPES, Case, cases
from tests.plugins.kernels import LEFTOVERS, MATCH_ORDERS, SELECT_ORDERS
from tmdeploy.ops.reference import token_match, token_select

# one build of the library serves all examples
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def assert_same_plan(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for name, a, b in zip(("map", "index", "sim", "count"), got, expected, strict=False):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), f"{name}: {(a != b).sum().item()} of {a.numel()} differ"


def tensor(kind: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    if kind == "ties":
        return torch.tensor(rng.integers(-2, 3, shape).astype(np.float32))
    values = torch.tensor(rng.standard_normal(shape).astype(np.float32))
    if kind == "special":
        flat = values.view(shape[0], shape[1], -1)
        flat[0, shape[1] // 2] = float("nan")
        flat[0, shape[1] // 3] = 0.0
        flat[0, shape[1] // 4] *= 1e-30
        flat[0, shape[1] // 5] = float("inf")
        flat[0, -1] *= 1e30
    return values


@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "channels", "prefix", "removed"),
    [
        (2, 3, 0, 1),
        (3, 1, 1, 0),
        (17, 64, 1, 8),
        (197, 64, 1, 13),
        (198, 64, 2, 98),
        (256, 64, 0, 128),
        (300, 6, 1, 40),
    ],
)
def test_match(
    kernels: KernelLibrary, tokens: int, channels: int, prefix: int, removed: int, dtype: torch.dtype, kind: str
) -> None:
    metric = tensor(kind, (2, tokens, channels), tokens).to(dtype)
    kernels.seed(tokens)
    for order in MATCH_ORDERS:
        expected = token_match(metric, torch.arange(tokens - removed), prefix, order)
        assert_same_plan(kernels.match(metric, tokens - removed, prefix, order), expected)


@examples
@given(case=cases(), order=st.sampled_from(MATCH_ORDERS), share=st.floats(0, 1), eps=st.sampled_from([0.0, 1.5, -1.0]))
def test_match_property(kernels: KernelLibrary, case: Case, order: str, share: float, eps: float) -> None:
    metric = case.metric()
    removed = round(share * ((case.tokens - case.prefix) // 2))
    kernels.seed(case.seed)
    expected = token_match(metric, torch.arange(case.tokens - removed), case.prefix, order, eps)
    assert_same_plan(kernels.match(metric, case.tokens - removed, case.prefix, order, eps), expected)


@pytest.mark.parametrize("tokens", [257, 641])
@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_match_spread_over_blocks(kernels: KernelLibrary, tokens: int, kind: str) -> None:
    metric = tensor(kind, (2, tokens, 12), tokens)
    removed = tokens // 3
    workspace = torch.empty(kernels.match_workspace(metric, tokens - removed, 1) // 8, dtype=torch.int64)
    assert workspace.numel() > 0
    got = kernels.match(metric, tokens - removed, 1, workspace=workspace)
    assert_same_plan(got, token_match(metric, torch.arange(tokens - removed), 1))


def test_match_of_misaligned_rows(kernels: KernelLibrary) -> None:
    metric = torch.randn(1 + 1 * 33 * 64)[1:].view(1, 33, 64)
    assert metric.data_ptr() % 16 != 0
    assert_same_plan(kernels.match(metric, 25), token_match(metric, torch.arange(25)))


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [2049, 4096])
def test_match_of_many_tokens(kernels: KernelLibrary, tokens: int) -> None:
    metric = tensor("ties", (1, tokens, 8), tokens)
    assert_same_plan(kernels.match(metric, tokens - 500), token_match(metric, torch.arange(tokens - 500)))


def test_match_in_float32_is_close(kernels: KernelLibrary) -> None:
    metric = tensor("special", (2, 197, 64), 1)
    plan, index, sim = kernels.match(metric, 184, deterministic=False)
    _, _, exact = token_match(metric, torch.arange(184))
    merged = (plan.gather(1, index.long()) >= 0).all()  # every anchor has a slot
    assert merged
    assert torch.equal(plan.gather(1, index.long()), torch.arange(184, dtype=torch.int32).expand(2, 184))
    assert torch.allclose(sim.sort().values, exact.sort().values, atol=1e-5)


@pytest.mark.parametrize("leftover", LEFTOVERS)
@pytest.mark.parametrize("order", SELECT_ORDERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "channels", "prefix", "kept"),
    [(2, 3, 1, 2), (5, 2, 0, 1), (197, 64, 1, 138), (300, 6, 2, 20), (300, 6, 2, 299), (300, 6, 0, 300)],
)
def test_select(
    kernels: KernelLibrary,
    tokens: int,
    channels: int,
    prefix: int,
    kept: int,
    dtype: torch.dtype,
    order: str,
    leftover: str,
) -> None:
    score = tensor("special" if kept % 2 == 0 else "ties", (2, tokens), tokens).to(dtype)
    metric = tensor("ties", (2, tokens, channels), kept).to(dtype) if leftover == "nearest" else None
    slots = kept + (leftover == "fuse" and kept < tokens)
    kernels.seed(kept)
    got = kernels.select(score, slots, metric, kept, prefix, leftover, order)
    count = torch.arange(kept) if leftover == "fuse" else None
    assert_same_plan(got, token_select(score, torch.arange(slots), metric, count, prefix, leftover, order))


@examples
@given(case=cases(), leftover=st.sampled_from(LEFTOVERS), order=st.sampled_from(SELECT_ORDERS), share=st.floats(0, 1))
def test_select_property(kernels: KernelLibrary, case: Case, leftover: str, order: str, share: float) -> None:
    kept = case.prefix + max(1, round(share * (case.tokens - case.prefix)))
    metric = case.metric() if leftover == "nearest" else None  # score is float32 here, metric of any type
    slots = kept + (leftover == "fuse" and kept < case.tokens)
    kernels.seed(case.seed)
    got = kernels.select(case.score(), slots, metric, kept, case.prefix, leftover, order)
    count = torch.arange(kept) if leftover == "fuse" else None
    expected = token_select(case.score(), torch.arange(slots), metric, count, case.prefix, leftover, order)
    assert_same_plan(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_select_of_many_tokens(kernels: KernelLibrary, leftover: str) -> None:
    score = tensor("plain", (1, 4096), 1)
    metric = tensor("plain", (1, 4096, 8), 2) if leftover == "nearest" else None
    slots = 3000 + (leftover == "fuse")
    got = kernels.select(score, slots, metric, 3000, 0, leftover)
    count = torch.arange(3000) if leftover == "fuse" else None
    assert_same_plan(got, token_select(score, torch.arange(slots), metric, count, 0, leftover))


@pytest.mark.parametrize(
    ("tokens", "slots", "prefix", "message"),
    [
        (8, 9, 1, "slots exceed"),
        (8, 4, 1, "more than half|more tokens to merge"),
        (8, 8, 9, "num_prefix"),
        (4097, 4097, 1, "4096"),
    ],
)
def test_match_refuses(kernels: KernelLibrary, tokens: int, slots: int, prefix: int, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        kernels.match(torch.zeros(1, tokens, 4), slots, prefix)


def test_select_refuses(kernels: KernelLibrary) -> None:
    score = torch.zeros(1, 8)
    with pytest.raises(KernelError, match="more tokens to keep"):
        kernels.select(score, 9)
    with pytest.raises(KernelError, match="at least one token"):
        kernels.select(score, 1)
    with pytest.raises(KernelError, match="do not fit"):
        kernels.select(score, 4, kept=4, leftover="fuse")
    with pytest.raises(KernelError, match="needs a metric"):
        kernels.select(score, 4, leftover="nearest")


def test_empty_batch_is_no_error(kernels: KernelLibrary) -> None:
    plan, index, _ = kernels.match(torch.zeros(0, 8, 4), 6)
    assert plan.shape == (0, 8)
    assert index.shape == (0, 6)
