import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops import oracle
from tests.ops.onnx_op import run_op
from tests.ops.strategies import OPSETS, Case, cases
from tmdeploy.ops.limits import r_limit
from tmdeploy.ops.reference import token_match, token_reduce, token_select
from tmdeploy.ops.spec import ReduceAttributes

MODES = ReduceAttributes.choices("mode")


def _plan(case: Case, share: float, kind: str):
    if kind == "match":
        total = case.tokens - round(share * r_limit(case.tokens, case.prefix))
        return token_match(case.metric(), torch.arange(total), case.prefix)[:2]
    stay = case.prefix + 1 + round(share * (case.tokens - case.prefix - 1))
    total = stay + (kind == "fuse" and stay < case.tokens)
    kept = torch.arange(stay) if kind == "fuse" else None
    return token_select(case.score(), torch.arange(total), None, kept, case.prefix, kind)[:2]


def _x_and_weight(case: Case):
    rng = case.generator()
    x = torch.tensor(rng.standard_normal((case.batch, case.tokens, 5)), dtype=torch.float32).to(case.dtype)
    weight = torch.tensor(rng.integers(0, 4, (case.batch, case.tokens)), dtype=torch.float32)
    return x, weight


@given(
    case=cases(),
    share=st.floats(0, 1),
    kind=st.sampled_from(["match", "drop", "fuse"]),
    mode=st.sampled_from(MODES),
)
def test_reference_equals_the_oracle(case: Case, share: float, kind: str, mode: str):
    plan, index = _plan(case, share, kind)
    x, weight = _x_and_weight(case)
    y, wsum = token_reduce(x, plan, index, weight, mode)
    assert y.dtype == x.dtype
    assert wsum.dtype == torch.float32
    spacing = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[case.dtype]
    for image in range(case.batch):
        arguments = (x[image].float().numpy(), plan[image].numpy(), index[image].numpy(), weight[image].numpy())
        expected_y, expected_wsum = oracle.reduce(*arguments, mode)
        # one rounding at the end: within one unit in the last place of x's dtype
        scale = np.abs(expected_y).max(initial=1.0)
        np.testing.assert_allclose(y[image].float().numpy(), expected_y, rtol=spacing, atol=2e-6 * scale)
        np.testing.assert_array_equal(wsum[image].numpy(), expected_wsum)


@given(
    case=cases(dtypes=(torch.float32, torch.float16)),
    share=st.floats(0, 1),
    kind=st.sampled_from(["match", "drop", "fuse"]),
    mode=st.sampled_from(MODES),
    opset=OPSETS,
)
def test_onnx_body_equals_the_reference(case: Case, share: float, kind: str, mode: str, opset: int):
    plan, index = _plan(case, share, kind)
    x, weight = _x_and_weight(case)
    expected = token_reduce(x, plan, index, weight, mode)
    feeds = {"x": x, "map": plan, "index": index, "weight": weight}
    y, wsum = run_op("TokenReduce", {name: value.numpy() for name, value in feeds.items()}, opset, mode=mode)
    relative = 2e-6 if case.dtype == torch.float32 else 1e-3
    scale = np.abs(expected[0].float().numpy()).max(initial=1.0)  # a mean near zero is stretched by mlerp
    np.testing.assert_allclose(y, expected[0].numpy(), rtol=relative, atol=1e-5 * scale)
    np.testing.assert_array_equal(wsum, expected[1].numpy())


def test_anchor_comes_first_then_ascending_tokens():
    """In float32, (1 + 1e8) - 1e8 = 0 and (-1e8 + 1e8) + 1 = 1: the order of the sum is visible."""
    x = torch.tensor([[[0.0], [-1e8], [1.0], [0.0], [1e8]]])
    plan, index = torch.tensor([[0, 1, 1, 2, 1]], dtype=torch.int32), torch.tensor([[0, 4, 3]], dtype=torch.int32)
    y, _ = token_reduce(x, plan, index, mode="sum")
    assert y[0, 1].item() == 1.0  # 1e8 (anchor) - 1e8 + 1
    index[0, 1] = 2
    y, _ = token_reduce(x, plan, index, mode="sum")
    assert y[0, 1].item() == 0.0  # 1 (anchor) - 1e8 + 1e8, the 1 lost


def test_sizes_above_2048_stay_exact_in_a_half_model():
    x = torch.zeros(1, 3, 1, dtype=torch.float16)
    plan, index = torch.tensor([[0, 1, 1]], dtype=torch.int32), torch.tensor([[0, 1]], dtype=torch.int32)
    _, size = token_reduce(x, plan, index, torch.tensor([[1.0, 2049.0, 2.0]]))
    assert size.tolist() == [[1.0, 2051.0]]


def test_empty_slot_is_zero():
    plan, index = torch.tensor([[0, 0]], dtype=torch.int32), torch.tensor([[0, -1]], dtype=torch.int32)
    for mode in MODES:
        y, wsum = token_reduce(torch.ones(1, 2, 3), plan, index, mode=mode)
        assert y[0, 1].tolist() == [0.0, 0.0, 0.0]
        assert wsum.tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize("bad", [-2, 3])
def test_corrupt_map_is_refused(bad: int):
    plan, index = torch.tensor([[0, bad]], dtype=torch.int32), torch.tensor([[0, 1, 1]], dtype=torch.int32)
    with pytest.raises(ValueError, match="map points outside the 3 slots"):
        token_reduce(torch.ones(1, 2, 3), plan, index)


@pytest.mark.parametrize("bad", [-2, 2])
def test_corrupt_index_is_refused(bad: int):
    plan, index = torch.tensor([[0, 1]], dtype=torch.int32), torch.tensor([[0, bad]], dtype=torch.int32)
    with pytest.raises(ValueError, match="index points outside the 2 tokens"):
        token_reduce(torch.ones(1, 2, 3), plan, index)


def test_unknown_mode_is_refused():
    plan = index = torch.tensor([[0]], dtype=torch.int32)
    with pytest.raises(ValueError, match="unknown mode 'median'"):
        token_reduce(torch.ones(1, 1, 1), plan, index, mode="median")
