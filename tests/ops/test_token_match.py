import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops import oracle
from tests.ops.onnx_op import run_op
from tests.ops.strategies import COUNTING, OPSETS, Case, cases
from tmdeploy.ops.bodies import function_body
from tmdeploy.ops.limits import r_limit
from tmdeploy.ops.reference import token_match, token_reduce


def _counts(case: Case, share: float) -> int:
    return case.tokens - round(share * r_limit(case.tokens, case.prefix))


@given(case=cases(), share=st.floats(0, 1), order=st.sampled_from(["tome", "tome_unsorted"]))
def test_reference_equals_the_oracle(case: Case, share: float, order: str):
    metric, total = case.metric(), _counts(case, share)
    plan, index, sim = token_match(metric, torch.arange(total), case.prefix, order)
    for image in range(case.batch):
        expected = oracle.match(metric[image].float().numpy(), total, case.prefix, order)
        np.testing.assert_array_equal(plan[image].numpy(), expected[0])
        np.testing.assert_array_equal(index[image].numpy(), expected[1])
        np.testing.assert_allclose(sim[image].numpy(), expected[2], rtol=1e-6)


@given(
    case=cases(dtypes=(torch.float32, torch.float16)),
    share=st.floats(0, 1),
    order=st.sampled_from(["tome", "tome_unsorted"]),
    opset=OPSETS,
    counting=COUNTING,
)
def test_onnx_bodies_equal_the_reference_bit_for_bit(case: Case, share: float, order: str, opset: int, counting: bool):
    metric, slots = case.metric(), torch.arange(_counts(case, share))
    expected = token_match(metric, slots, case.prefix, order)
    feeds = {"metric": metric.numpy(), "slots": slots.numpy()}
    got = run_op("TokenMatch", feeds, opset, counting=counting, num_prefix=case.prefix, order=order)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


@given(case=cases(), share=st.floats(0, 1))
def test_plan_is_well_formed(case: Case, share: float):
    total = _counts(case, share)
    plan, index, sim = token_match(case.metric(), torch.arange(total), case.prefix)
    slots = torch.arange(total)
    for image in range(case.batch):
        assert plan[image].unique().tolist() == slots.tolist()  # every slot is used, nothing is dropped
        assert torch.equal(plan[image][index[image].long()], slots.int())  # an anchor maps to its own slot
        assert plan[image, : case.prefix].tolist() == list(range(case.prefix))
        assert int((sim[image] != 1).sum()) <= case.tokens - total


@given(case=cases(), share=st.floats(0, 1))
def test_a_plan_depends_on_its_own_image_only(case: Case, share: float):
    metric, slots = case.metric(), torch.arange(_counts(case, share))
    together = token_match(metric, slots, case.prefix)
    for image in range(case.batch):
        alone = token_match(metric[image : image + 1], slots, case.prefix)
        for whole, single in zip(together, alone, strict=True):
            assert torch.equal(whole[image], single[0])


def test_ties_go_to_the_lower_token():
    metric = torch.ones(1, 33, 4)  # every similarity is 1: beyond 16 elements an unstable sort would show
    plan, index, _ = token_match(metric, torch.arange(28))
    merged = sorted(set(range(33)) - set(index[0].tolist()))
    assert merged == [2, 4, 6, 8, 10]
    first_target = index[0].tolist().index(1)
    assert plan[0, merged].tolist() == [first_target] * 5


def test_r_zero_is_the_identity():
    plan, index, sim = token_match(torch.randn(2, 9, 3), torch.arange(9))
    assert plan.tolist() == index.tolist() == [list(range(9))] * 2
    assert sim.eq(1).all()


def test_distillation_token_keeps_slot_one():
    plan, index, _ = token_match(torch.randn(3, 198, 8), torch.arange(185), num_prefix=2)
    assert index[:, :2].tolist() == [[0, 1]] * 3
    assert plan[:, :2].tolist() == [[0, 1]] * 3


def test_nan_is_merged_last_and_chosen_last():
    metric = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [float("nan"), 0], [float("nan"), 0]]])
    plan, index, sim = token_match(metric, torch.arange(4))
    assert index.tolist() == [[0, 4, 1, 3]]  # 2 merges into 1, not into the NaN at 3; 4 stays
    assert plan.tolist() == [[0, 2, 2, 3, 1]]
    assert sim[0, 2] == 1.0


def test_zero_vectors_have_similarity_zero():
    metric = torch.tensor([[[1.0, 0], [0, 0], [1, 0], [-1, 0], [1, 0]]])
    plan, _, sim = token_match(metric, torch.arange(3), num_prefix=1)
    assert sim.tolist() == [[1.0, 1.0, 0.0, 1.0, 0.0]]
    assert plan.tolist() == [[0, 1, 1, 2, 1]]


@pytest.mark.parametrize("total", [197 - 99, 198, 0])
def test_impossible_count_is_refused(total: int):
    with pytest.raises(ValueError, match="cannot merge"):
        token_match(torch.randn(1, 197, 4), torch.arange(total))


def test_unknown_order_is_refused():
    with pytest.raises(ValueError, match="unknown order 'rank'"):
        token_match(torch.randn(1, 9, 4), torch.arange(8), order="rank")
    with pytest.raises(ValueError, match="unknown order 'rank'"):
        run_op("TokenMatch", {"metric": np.ones((1, 9, 4), np.float32), "slots": np.arange(8)}, order="rank")
    with pytest.raises(ValueError, match="unknown order 'rank'"):
        function_body("TokenMatch", {"order": "rank"}, 20, counting=True)


def test_fp16_metric_is_planned_in_fp32():
    """With similarities rounded to fp16 the best pair would tie; in fp32 it does not."""
    metric = torch.tensor([[[0.0, 1], [1, 0.02], [1, 0], [0, 1], [1, 0.015]]], dtype=torch.float16)
    _, index, sim = token_match(metric, torch.arange(4))
    assert sim.dtype == torch.float32
    assert 4 not in index[0].tolist()  # 0.015 is nearer to 0.02 than 0 is, by 1.9e-4
    assert sim.half()[0, 4] == 1.0


def _tome_of_the_paper(x: torch.Tensor, k: torch.Tensor, size: torch.Tensor, r: int, *, distilled: bool):
    """ToMe's merge as methods.md 2.1 writes it down from the official code, with scatter sums."""
    m = k / k.norm(dim=-1, keepdim=True)
    a, b = m[:, ::2], m[:, 1::2]
    s = a @ b.transpose(1, 2)
    s[:, 0] = float("-inf")
    if distilled:
        s[:, :, 0] = float("-inf")
    v, j = s.max(-1)
    e = v.argsort(dim=-1, descending=True, stable=True)
    src, unm = e[:, :r, None], e[:, r:, None].sort(dim=1).values
    dst = j[..., None].gather(1, src)

    def merge(t: torch.Tensor) -> torch.Tensor:
        even, odd = t[:, ::2], t[:, 1::2].clone()
        width = t.shape[-1]
        kept = even.gather(1, unm.expand(-1, -1, width))
        odd.scatter_add_(1, dst.expand(-1, -1, width), even.gather(1, src.expand(-1, -1, width)))
        if distilled:
            return torch.cat([kept[:, :1], odd[:, :1], kept[:, 1:], odd[:, 1:]], dim=1)
        return torch.cat([kept, odd], dim=1)

    total = merge(size[..., None])
    return merge(x * size[..., None]) / total, total[..., 0]


@pytest.mark.parametrize(("distilled", "tokens"), [(False, 197), (False, 196), (True, 198), (True, 199)])
@pytest.mark.parametrize("r", [1, 8, 16, 98])
def test_same_as_the_original_algorithm_over_a_chain(distilled: bool, tokens: int, r: int):
    """Order of tokens included: the next step splits by position, so a wrong order shows up two steps later."""
    generator = torch.Generator().manual_seed(r)
    x = torch.randn(2, tokens, 24, generator=generator)
    size = torch.ones(2, tokens)
    theirs, their_size = x, size
    prefix = 2 if distilled else 1
    for _ in range(4):
        step = min(r, (x.shape[1] - prefix) // 2)
        if step == 0:
            break
        plan, index, _ = token_match(x[..., :8], torch.arange(x.shape[1] - step), num_prefix=prefix)
        x, size = token_reduce(x, plan, index, size)
        theirs, their_size = _tome_of_the_paper(theirs, theirs[..., :8], their_size, step, distilled=distilled)
    torch.testing.assert_close(x, theirs, atol=2e-6, rtol=1e-5)
    assert torch.equal(size, their_size)
