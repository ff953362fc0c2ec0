"""The CPU kernels against the PyTorch reference: plans bit for bit, tokens within one unit in the last place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.strategies import DTYPES, Case, cases
from tests.plugins.building import built, built_kernels
from tests.plugins.kernels import LEFTOVERS, MATCH_ORDERS, MODES, SELECT_ORDERS, Kernels
from tmdeploy.ops.limits import r_limit
from tmdeploy.ops.reference import token_match, token_reduce, token_select


def _equal(got: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, wanted, strict=True))


def _within_one_ulp(got: torch.Tensor, wanted: torch.Tensor, ulps: int = 1) -> bool:
    both_nan = got.isnan() & wanted.isnan()
    same = got == wanted
    wide = wanted.double()
    step = torch.finfo(wanted.dtype).eps * wide.abs().clamp_min(torch.finfo(wanted.dtype).tiny)
    return bool((both_nan | same | ((got.double() - wide).abs() <= ulps * step)).all())


@given(case=cases(), share=st.floats(0, 1), order=st.sampled_from(MATCH_ORDERS), eps=st.sampled_from([0.0, 1.5]))
@settings(max_examples=200)
def test_match(kernels: Kernels, case: Case, share: float, order: str, eps: float):
    slots = case.tokens - round(share * r_limit(case.tokens, case.prefix))
    metric = case.metric()
    if eps:
        metric[0, :: case.width] = 0
    wanted = token_match(metric, torch.arange(slots), num_prefix=case.prefix, order=order, metric_eps=eps)
    kernels.threads = 1 + case.seed % 3
    assert _equal(kernels.token_match(metric, slots, case.prefix, order, eps), wanted)


@given(
    case=cases(),
    share=st.floats(0, 1),
    leftover=st.sampled_from(LEFTOVERS),
    order=st.sampled_from(SELECT_ORDERS),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=200)
def test_select(kernels: Kernels, case: Case, share: float, leftover: str, order: str, dtype: torch.dtype):
    patches = case.tokens - case.prefix
    kept = case.prefix + max(1, round(share * patches))
    slots = kept + (leftover == "fuse" and kept < case.tokens)
    score, metric = case.score().to(dtype), case.metric() if leftover == "nearest" else None
    wanted = token_select(
        score,
        torch.arange(slots),
        metric,
        torch.arange(kept) if leftover == "fuse" else None,
        num_prefix=case.prefix,
        leftover=leftover,
        order=order,
    )
    kernels.threads = 1 + case.seed % 3
    assert _equal(kernels.token_select(score, slots, case.prefix, leftover, order, metric, kept), wanted)


@given(
    case=cases(),
    mode=st.sampled_from(MODES),
    weights=st.sampled_from(["none", "sizes", "zeros", "odd"]),
    share=st.floats(0, 1),
    planner=st.sampled_from(["match", "fuse", "drop"]),
)
@settings(max_examples=250)
def test_reduce(kernels: Kernels, case: Case, mode: str, weights: str, share: float, planner: str):
    rng = case.generator()
    if planner == "match":
        slots = case.tokens - round(share * r_limit(case.tokens, case.prefix))
        plan, index, _ = token_match(case.metric(), torch.arange(slots), num_prefix=case.prefix)
    else:
        kept = case.prefix + max(1, round(share * (case.tokens - case.prefix)))
        fused = planner == "fuse"
        plan, index, _, _ = token_select(
            case.score(),
            torch.arange(kept + (fused and kept < case.tokens)),
            kept=torch.arange(kept) if fused else None,
            num_prefix=case.prefix,
            leftover=planner,
        )
    shape = (case.batch, case.tokens)
    weight = {
        "none": None,
        "sizes": torch.tensor(rng.integers(1, 60, shape), dtype=torch.float32),
        "zeros": torch.tensor(rng.integers(0, 2, shape), dtype=torch.float32),
        "odd": torch.tensor(rng.random(shape), dtype=torch.float32),
    }[weights]
    x = case.metric()
    wanted, wanted_sum = token_reduce(x, plan, index, weight, mode)
    kernels.threads = 1 + case.seed % 3
    y, wsum = kernels.token_reduce(x, plan, index, weight, mode)
    assert torch.equal(wsum, wanted_sum)
    if mode.startswith("mlerp"):  # its norms accumulate in float64 here, in float32 in the reference
        assert _within_one_ulp(y, wanted, 8 if x.dtype == torch.float32 else 1)
    else:
        assert torch.equal(y.nan_to_num(7e4), wanted.nan_to_num(7e4))


@pytest.mark.parametrize("tokens", [2, 197, 577, 1100])
@pytest.mark.parametrize("threads", [1, 4])
def test_match_at_the_sizes_of_models(kernels: Kernels, tokens: int, threads: int):
    """Long rows of many channels, where the order of summation differs from the reference's."""
    torch.manual_seed(tokens)
    metric = torch.randn(2, tokens, 64)
    kernels.threads = threads
    for slots in (tokens, tokens - r_limit(tokens, 1) // 2, tokens - r_limit(tokens, 1)):
        wanted = token_match(metric, torch.arange(slots), num_prefix=1)
        assert _equal(kernels.token_match(metric, slots, 1), wanted)
        x = torch.randn(2, tokens, 192)
        y, wsum = kernels.token_reduce(x, *wanted[:2])
        assert _equal((y, wsum), token_reduce(x, *wanted[:2]))


def test_float32_accumulation_gives_a_good_plan(kernels: Kernels):
    """`deterministic = 0` may differ in near-ties only."""
    torch.manual_seed(0)
    metric = torch.randn(4, 197, 64)
    exact = kernels.token_match(metric, 184, 1)
    fast = kernels.token_match(metric, 184, 1, exact=False)
    assert torch.allclose(exact[2].sort(1).values, fast[2].sort(1).values, atol=1e-6)
    assert not torch.equal(exact[2], fast[2])  # it does use float32


def test_wrong_counts_and_plans_are_refused(kernels: Kernels):
    metric = torch.randn(1, 9, 4)
    with pytest.raises(ValueError, match="more tokens to merge than half"):
        kernels.token_match(metric, 4, 1)
    with pytest.raises(ValueError, match="slots exceed"):
        kernels.token_match(metric, 10, 1)
    with pytest.raises(ValueError, match="at least one token"):
        kernels.token_select(metric[..., 0], 1, 1)
    with pytest.raises(ValueError, match="needs a metric"):
        kernels.token_select(metric[..., 0], 4, 1, "nearest")
    plan, index, _ = kernels.token_match(metric, 6, 1)
    for bad in (6, -2, 2**31 - 1, -(2**31)):
        corrupt = plan.clone()
        corrupt[0, 5] = bad
        with pytest.raises(ValueError, match="outside its range"):
            kernels.token_reduce(metric, corrupt, index)


@pytest.mark.parametrize("instruction_set", ["baseline", "avx2", "avx512"])
def test_under_sanitizers(instruction_set: str):
    """Every instruction set this processor has; a lower one runs where it has not."""
    program = built(
        "tmdeploy_kernels_test",
        "tests/tmdeploy_kernels_test",
        TMDEPLOY_BUILD_TESTS="ON",
        TMDEPLOY_SANITIZE="ON",
    )
    environment = {"TMDEPLOY_ISA": instruction_set, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [program, "0", "700"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "700 cases, 0 failures" in done.stdout


def test_instruction_sets_give_the_same_plans(kernels: Kernels, tmp_path: Path):
    torch.manual_seed(1)
    metric = torch.randn(3, 101, 37)
    torch.save((metric, kernels.token_match(metric, 70, 1)), tmp_path / "plan.pt")
    script = (
        "import sys, torch; from pathlib import Path; from tests.plugins.kernels import Kernels\n"
        "kernels = Kernels(Path(sys.argv[1])); metric, wanted = torch.load(sys.argv[2])\n"
        "got = kernels.token_match(metric, 70, 1)\n"
        "assert kernels.instruction_set == 'baseline' and all(map(torch.equal, got, wanted))"
    )
    command = [sys.executable, "-c", script, str(built_kernels())]
    environment = {"TMDEPLOY_ISA": "baseline", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, str(tmp_path / "plan.pt")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
