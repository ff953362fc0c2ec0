import pytest
import torch

from tmdeploy.ops.reference import DIFFERENTIABLE, token_match, token_reduce, token_select


def _plan(kind: str):
    if kind == "match":
        return token_match(torch.randn(2, 9, 4), torch.arange(6))[:2]
    kept = torch.arange(5) if kind == "fuse" else None
    slots = torch.arange(6 if kind == "fuse" else 5)
    return token_select(torch.rand(2, 9), slots, kept=kept, leftover=kind)[:2]


@pytest.mark.parametrize("mode", DIFFERENTIABLE)
@pytest.mark.parametrize("kind", ["match", "drop", "fuse"])
def test_gradients_equal_finite_differences(mode: str, kind: str):
    torch.manual_seed(0)
    plan, index = _plan(kind)
    x = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 9) + 0.5

    assert torch.autograd.gradcheck(lambda x: token_reduce(x, plan, index, weight, mode)[0], (x,))


@pytest.mark.parametrize("mode", ["wmean", "sum"])
def test_gradient_of_the_weight(mode: str):
    """float32 weights are too coarse for gradcheck: compare with autograd through plain ops."""
    torch.manual_seed(0)
    plan, index = _plan("match")
    x, weight = torch.randn(2, 9, 3), (torch.rand(2, 9) + 0.5).requires_grad_()
    target = torch.randn(2, 6, 3)
    y, wsum = token_reduce(x, plan, index, weight, mode)
    (ours,) = torch.autograd.grad((y * target).sum() + wsum.square().sum(), weight)

    one_hot = torch.nn.functional.one_hot(plan.long(), 6).float().transpose(1, 2)
    sums = one_hot @ (x * weight[..., None])
    sizes = one_hot @ weight[..., None]
    expected_y = sums / sizes if mode == "wmean" else sums
    (expected,) = torch.autograd.grad((expected_y * target).sum() + sizes.square().sum(), weight)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_modes_without_a_gradient_say_so():
    plan, index = _plan("match")
    x = torch.randn(2, 9, 3, requires_grad=True)
    with pytest.raises(NotImplementedError, match="no gradient for mode 'max'"):
        token_reduce(x, plan, index, None, "max")[0].sum().backward()
