import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops import oracle
from tests.ops.onnx_op import run_op
from tests.ops.strategies import COUNTING, OPSETS, Case, cases
from tmdeploy.ops.reference import token_reduce, token_select
from tmdeploy.ops.spec import SelectAttributes

LEFTOVERS = st.sampled_from(SelectAttributes.choices("leftover"))
ORDERS = st.sampled_from(SelectAttributes.choices("order"))


def _arguments(case: Case, share: float, leftover: str):
    keep = 1 + round(share * (case.tokens - case.prefix - 1))
    stay = case.prefix + keep
    total = stay + (leftover == "fuse" and stay < case.tokens)
    metric = case.metric() if leftover == "nearest" else None
    kept = torch.arange(stay) if leftover == "fuse" else None
    return keep, case.score(), torch.arange(total), metric, kept


@given(case=cases(), share=st.floats(0, 1), leftover=LEFTOVERS, order=ORDERS)
def test_reference_equals_the_oracle(case: Case, share: float, leftover: str, order: str):
    keep, score, slots, metric, kept = _arguments(case, share, leftover)
    plan, index, sim, count = token_select(score, slots, metric, kept, case.prefix, leftover, order)
    assert count.tolist() == [len(slots)] * case.batch
    for image in range(case.batch):
        image_metric = None if metric is None else metric[image].float().numpy()
        expected = oracle.select(score[image].numpy(), keep, case.prefix, leftover, order, image_metric)
        np.testing.assert_array_equal(plan[image].numpy(), expected[0])
        np.testing.assert_array_equal(index[image].numpy(), expected[1])
        np.testing.assert_allclose(sim[image].numpy(), expected[2], rtol=1e-6)


@given(
    case=cases(dtypes=(torch.float32, torch.float16)),
    share=st.floats(0, 1),
    leftover=LEFTOVERS,
    order=ORDERS,
    opset=OPSETS,
    counting=COUNTING,
)
def test_onnx_bodies_equal_the_reference_bit_for_bit(
    case: Case, share: float, leftover: str, order: str, opset: int, counting: bool
):
    _, score, slots, metric, kept = _arguments(case, share, leftover)
    expected = token_select(score, slots, metric, kept, case.prefix, leftover, order)
    feeds = {"score": score, "slots": slots, "metric": metric, "kept": kept}
    got = run_op(
        "TokenSelect",
        {name: value.numpy() for name, value in feeds.items() if value is not None},
        opset,
        counting=counting,
        num_prefix=case.prefix,
        leftover=leftover,
        order=order,
    )
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_ties_go_to_the_lower_token():
    score = torch.full((1, 40), 0.5)
    plan, index, _, _ = token_select(score, torch.arange(11))
    assert index.tolist() == [list(range(11))]
    assert plan[0, 11:].eq(-1).all()


def test_minus_zero_ties_with_zero():
    _, index, _, _ = token_select(torch.tensor([[0.0, -0.0, 0.0, -0.0]]), torch.arange(3))
    assert index.tolist() == [[0, 1, 2]]


def test_nan_scores_come_last():
    score = torch.tensor([[9.0, float("nan"), 0.1, 0.2]])
    _, index, _, _ = token_select(score, torch.arange(3))
    assert index.tolist() == [[0, 3, 2]]


def test_keeping_all_in_score_order_still_permutes():
    _, index, _, _ = token_select(torch.tensor([[0.0, 1.0, 3.0, 2.0]]), torch.arange(4))
    assert index.tolist() == [[0, 2, 3, 1]]


def test_fuse_tells_all_kept_from_one_fused():
    score = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    _, everything, _, _ = token_select(score, torch.arange(4), kept=torch.arange(4), leftover="fuse")
    _, one_fused, _, _ = token_select(score, torch.arange(4), kept=torch.arange(3), leftover="fuse")
    assert everything.tolist() == [[0, 1, 2, 3]]
    assert one_fused.tolist() == [[0, 1, 2, -1]]


def test_evit_fused_token_is_the_unnormalised_sum():
    """EViT's code sums a_j x_j without dividing by the sum of a_j (methods.md 3.1)."""
    generator = torch.Generator().manual_seed(0)
    x, score = torch.randn(2, 50, 6, generator=generator), torch.rand(2, 50, generator=generator)
    stay = 1 + 30
    plan, index, _, _ = token_select(score, torch.arange(stay + 1), kept=torch.arange(stay), leftover="fuse")
    fused = index.long().gather(1, plan.long()) < 0
    y, _ = token_reduce(x, plan, index, torch.where(fused, score, torch.ones_like(score)), mode="sum")
    order = score[:, 1:].argsort(dim=1, descending=True, stable=True) + 1
    for image in range(2):
        kept, rest = order[image, :30], order[image, 30:]
        expected = (score[image, rest, None] * x[image, rest]).sum(0)
        torch.testing.assert_close(y[image, -1], expected)
        assert torch.equal(y[image, 1:-1], x[image, kept])
        assert torch.equal(y[image, 0], x[image, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slots": torch.arange(1)}, "cannot keep 1 of 9"),
        ({"slots": torch.arange(10)}, "cannot keep 10 of 9"),
        ({"slots": torch.arange(5), "leftover": "nearest"}, "needs input metric"),
        ({"slots": torch.arange(5), "leftover": "fuse"}, "kept belongs to leftover=fuse"),
        ({"slots": torch.arange(5), "kept": torch.arange(5)}, "kept belongs to leftover=fuse"),
        ({"slots": torch.arange(5), "kept": torch.arange(5), "leftover": "fuse"}, "do not make 5 slots"),
        ({"slots": torch.arange(5), "leftover": "burn"}, "unknown leftover 'burn'"),
        ({"slots": torch.arange(5), "order": "random"}, "unknown order 'random'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        token_select(torch.rand(1, 9), **arguments)
