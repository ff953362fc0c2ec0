"""TokenReduce's device code, run by the emulator: the reference's bits, and corrupt plans without stray accesses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.gpu.kernel_library import KernelError, KernelLibrary
from tests.ops.strategies import DTYPES, Case, cases
from tests.plugins.kernels import MODES
from tmdeploy.ops.reference import token_match, token_reduce, token_select

EXACT_MODES = [mode for mode in MODES if not mode.startswith("mlerp")]


def assert_reduced(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], mode: str) -> None:
    assert torch.equal(got[1], expected[1])
    y, y_expected = got[0], expected[0]
    assert y.dtype == y_expected.dtype
    if mode in EXACT_MODES:
        assert torch.equal(y.nan_to_num(7.5), y_expected.nan_to_num(7.5))
        assert torch.equal(y.isnan(), y_expected.isnan())
    else:
        # the norms' order of summation is free; one unit in the last place for the rounding to 16 bits
        unit = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}[y.dtype]
        torch.testing.assert_close(y.float(), y_expected.float(), rtol=unit, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features", [192, 384, 40, 7])
def test_reduce_by_a_match(kernels: KernelLibrary, features: int, dtype: torch.dtype, mode: str) -> None:
    torch.manual_seed(features)
    tokens = 61
    plan, index, _ = token_match(torch.randn(2, tokens, 8), torch.arange(tokens - 25))
    x = torch.randn(2, tokens, features).to(dtype)
    weight = torch.randint(0, 3, (2, tokens)).float()  # zeros too: a slot of no weight is its anchor
    kernels.seed(features)
    for w in (weight, None):
        assert_reduced(kernels.reduce(x, plan, index, w, mode), token_reduce(x, plan, index, w, mode), mode)


@pytest.mark.parametrize("features", [768, 1024])
def test_reduce_of_wide_tokens(kernels: KernelLibrary, features: int) -> None:
    x = torch.randn(1, 197, features).half()
    score = torch.rand(1, 197)
    plan, index, _, _ = token_select(score, torch.arange(140), None, torch.arange(139), leftover="fuse")
    weight = torch.rand(1, 197)
    expected = token_reduce(x, plan, index, weight, "wmean")
    assert_reduced(kernels.reduce(x, plan, index, weight), expected, "wmean")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), mode=st.sampled_from(MODES), weighted=st.booleans(), slots=st.integers(1, 50))
def test_reduce_by_any_plan(kernels: KernelLibrary, case: Case, mode: str, weighted: bool, slots: int) -> None:
    """Plans no planner makes: empty slots, anchors that map elsewhere, several tokens, dropped ones."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.batch, case.tokens)
    plan = torch.randint(-1, slots, shape, generator=generator).int()
    index = torch.randint(-1, case.tokens, (case.batch, slots), generator=generator).int()
    weight = torch.randint(0, 4, shape, generator=generator).float() if weighted else None
    x = case.metric()
    kernels.seed(case.seed)
    assert_reduced(kernels.reduce(x, plan, index, weight, mode), token_reduce(x, plan, index, weight, mode), mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["wmean", "max"])
def test_reduce_of_many_tokens(kernels: KernelLibrary, mode: str) -> None:
    x = torch.randn(1, 4096, 16)
    plan, index, _ = token_match(torch.randn(1, 4096, 4), torch.arange(2500))
    assert_reduced(kernels.reduce(x, plan, index, None, mode), token_reduce(x, plan, index, None, mode), mode)


@pytest.mark.parametrize("value", [3, 2**31 - 1, -2, -(2**31)])
@pytest.mark.parametrize("mode", ["wmean", "mlerp"])
def test_corrupt_map_gives_nan_in_its_image_only(kernels: KernelLibrary, value: int, mode: str) -> None:
    x = torch.randn(2, 5, 8)
    plan = torch.tensor([[0, 1, 2, 1, 0]] * 2, dtype=torch.int32)
    index = torch.tensor([[0, 1, 2]] * 2, dtype=torch.int32)
    plan[0, 3] = value
    y, wsum = kernels.reduce(x, plan, index, None, mode)
    assert y[0].isnan().all()
    assert wsum[0].isnan().all()
    assert_reduced((y[1:], wsum[1:]), token_reduce(x[1:], plan[1:], index[1:], None, mode), mode)


@pytest.mark.parametrize("value", [5, 2**31 - 1, -2, -(2**31)])
@pytest.mark.parametrize("mode", MODES)
def test_corrupt_index_gives_nan_in_its_slot_only(kernels: KernelLibrary, value: int, mode: str) -> None:
    x = torch.randn(1, 5, 8)
    plan = torch.tensor([[0, 1, 2, 1, 0]], dtype=torch.int32)
    index = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    expected = token_reduce(x, plan, index, None, mode)
    index[0, 1] = value
    y, wsum = kernels.reduce(x, plan, index, None, mode)
    assert y[0, 1].isnan().all()
    assert wsum[0, 1].isnan()
    others = [0, 2]
    assert_reduced((y[:, others], wsum[:, others]), (expected[0][:, others], expected[1][:, others]), mode)


def test_refuses_too_many_tokens(kernels: KernelLibrary) -> None:
    x = torch.zeros(1, 4097, 1)
    plan = torch.zeros(1, 4097, dtype=torch.int32)
    with pytest.raises(KernelError, match="4096"):
        kernels.reduce(x, plan, plan[:, :1])
