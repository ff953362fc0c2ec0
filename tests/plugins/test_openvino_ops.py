"""The extension's ops against the PyTorch reference, read from ONNX: plans bit for bit, in every type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops.strategies import DTYPES, Case, cases
from tests.plugins.kernels import LEFTOVERS, MATCH_ORDERS, MODES, SELECT_ORDERS
from tests.plugins.openvino_op import Ops, one_node
from tmdeploy.ops.limits import r_limit
from tmdeploy.ops.reference import token_match, token_reduce, token_select


@pytest.fixture(scope="session")
def ops(openvino_built: Path) -> Ops:
    return Ops(openvino_built)


def _equal(got: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, wanted, strict=True))


@given(case=cases(), share=st.floats(0, 1), order=st.sampled_from(MATCH_ORDERS), eps=st.sampled_from([0.0, 1.5]))
def test_match(ops: Ops, case: Case, share: float, order: str, eps: float):
    slots = torch.arange(case.tokens - round(share * r_limit(case.tokens, case.prefix)))
    metric = case.metric()
    wanted = token_match(metric, slots, num_prefix=case.prefix, order=order, metric_eps=eps)
    feeds = {"metric": metric, "slots": slots}
    assert _equal(ops("TokenMatch", feeds, num_prefix=case.prefix, order=order, metric_eps=eps), wanted)


@given(
    case=cases(),
    share=st.floats(0, 1),
    leftover=st.sampled_from(LEFTOVERS),
    order=st.sampled_from(SELECT_ORDERS),
    dtype=st.sampled_from(DTYPES),
    spare_metric=st.booleans(),
)
def test_select(ops: Ops, case: Case, share: float, leftover: str, order: str, dtype: torch.dtype, spare_metric: bool):
    """All four ways to leave out or give metric and kept."""
    kept = case.prefix + max(1, round(share * (case.tokens - case.prefix)))
    slots = torch.arange(kept + (leftover == "fuse" and kept < case.tokens))
    feeds = {"score": case.score().to(dtype), "slots": slots}
    if leftover == "nearest" or spare_metric:
        feeds["metric"] = case.metric()
    if leftover == "fuse":
        feeds["kept"] = torch.arange(kept)
    options = {"num_prefix": case.prefix, "leftover": leftover, "order": order}
    wanted = token_select(feeds["score"], slots, feeds.get("metric"), feeds.get("kept"), **options)
    assert _equal(ops("TokenSelect", feeds, **options), wanted)


@given(case=cases(), mode=st.sampled_from(MODES), weights=st.booleans(), share=st.floats(0, 1))
def test_reduce(ops: Ops, case: Case, mode: str, weights: bool, share: float):
    slots = torch.arange(case.tokens - round(share * r_limit(case.tokens, case.prefix)))
    plan, index, _ = token_match(case.metric(), slots, num_prefix=case.prefix)
    x = torch.tensor(case.generator().standard_normal((case.batch, case.tokens, 7))).to(case.dtype)
    feeds = {"x": x, "map": plan, "index": index}
    if weights:
        sizes = case.generator().integers(1, 9, (case.batch, case.tokens))
        feeds["weight"] = torch.tensor(sizes, dtype=torch.float32)
    y, wsum = ops("TokenReduce", feeds, mode=mode)
    wanted, sums = token_reduce(x, plan, index, feeds.get("weight"), mode=mode)
    assert y.dtype == wanted.dtype
    error = (y.double() - wanted.double()).abs()
    ulps = 4 if mode.startswith("mlerp") else 1  # two norms and a division more
    assert (error <= ulps * torch.finfo(x.dtype).eps * wanted.double().abs().clamp_min(1e-30)).all()
    assert torch.equal(wsum, sums)


def test_defaults_are_those_of_the_op_set(ops: Ops):
    metric, slots = torch.randn(2, 11, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    assert _equal(ops("TokenMatch", {"metric": metric, "slots": slots}), token_match(metric, slots))
    score = metric[..., 0].contiguous()
    assert _equal(ops("TokenSelect", {"score": score, "slots": slots}), token_select(score, slots))
    plan, index, _ = token_match(metric, slots)
    assert _equal(ops("TokenReduce", {"x": metric, "map": plan, "index": index}), token_reduce(metric, plan, index))


def test_shapes_are_inferred_as_far_as_they_are_known(ops: Ops):
    model = ops.core.read_model(one_node("TokenMatch", {"metric": torch.float32, "slots": torch.int64}))
    assert [str(port.partial_shape) for port in model.outputs] == ["[?,?]", "[?,?]", "[?,?]"]
    model.reshape({"metric": ov.PartialShape([-1, 197, 64]), "slots": ov.PartialShape([184])})
    assert [str(port.partial_shape) for port in model.outputs] == ["[?,197]", "[?,184]", "[?,197]"]
    given = {"score": torch.float32, "slots": torch.int64, "kept": torch.int64}
    model = ops.core.read_model(one_node("TokenSelect", given, leftover="fuse"))
    model.reshape({"score": ov.PartialShape([3, 197]), "slots": ov.PartialShape([11]), "kept": ov.PartialShape([10])})
    assert [str(port.partial_shape) for port in model.outputs] == ["[3,197]", "[3,11]", "[3,197]", "[3]"]
    given = {"x": torch.bfloat16, "map": torch.int32, "index": torch.int32}
    model = ops.core.read_model(one_node("TokenReduce", given))
    model.reshape({"x": ov.PartialShape([-1, 197, 384]), "index": ov.PartialShape([-1, 184])})
    assert [str(port.partial_shape) for port in model.outputs] == ["[?,184,384]", "[?,184]"]
    assert model.outputs[0].element_type == ov.Type.bf16


def test_openvinos_own_format_keeps_the_ops_and_their_attributes(ops: Ops, tmp_path: Path):
    metric, slots = torch.randn(2, 11, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    given = {"metric": torch.float32, "slots": torch.int64}
    attributes = {"num_prefix": 0, "order": "tome_unsorted", "metric_eps": 1.5, "deterministic": 0}
    ov.save_model(ops.core.read_model(one_node("TokenMatch", given, **attributes)), tmp_path / "m.xml")
    read = ops.core.read_model(tmp_path / "m.xml")
    compiled = ops.core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled([metric.numpy(), slots.numpy()])
    wanted = token_match(metric, slots, num_prefix=0, order="tome_unsorted", metric_eps=1.5, deterministic=False)
    for port, tensor in zip(compiled.outputs, wanted, strict=True):
        np.testing.assert_allclose(got[port], tensor.numpy(), rtol=1e-6)  # not deterministic: the last place is free
    assert (wanted[0] != token_match(metric, slots)[0]).any(), "the attributes matter here"


_METRIC = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("op", "feeds", "attributes", "message"),
    [
        ("TokenMatch", {"metric": _METRIC, "slots": torch.arange(3)}, {}, "more tokens to merge than half"),
        ("TokenMatch", {"metric": _METRIC, "slots": torch.arange(10)}, {}, "slots exceed the tokens"),
        ("TokenMatch", {"metric": _METRIC, "slots": torch.arange(6)}, {"order": "up"}, "unknown order 'up'"),
        ("TokenSelect", {"score": _METRIC[..., 0], "slots": torch.arange(0)}, {}, "at least one token after"),
        (
            "TokenSelect",
            {"score": _METRIC[..., 0], "slots": torch.arange(5), "kept": torch.arange(5)},
            {},
            "kept belongs to leftover = fuse, and only to it",
        ),
        ("TokenSelect", {"score": _METRIC[..., 0], "slots": torch.arange(5)}, {"leftover": "fuse"}, "kept belongs to"),
        (
            "TokenSelect",
            {"score": _METRIC[..., 0], "slots": torch.arange(5), "metric": _METRIC[:, :8]},
            {},
            "metric and score differ",
        ),
        (
            "TokenReduce",
            {"x": _METRIC, "map": torch.full((1, 9), 9, dtype=torch.int32), "index": torch.zeros(1, 4).int()},
            {},
            "the plan points outside its range",
        ),
        (
            "TokenReduce",
            {"x": _METRIC, "map": torch.zeros(1, 8).int(), "index": torch.zeros(1, 4).int()},
            {},
            r"shapes do not fit: x \[1,9,4\], map \[1,8\]",
        ),
        (
            "TokenReduce",
            {"x": _METRIC, "map": torch.zeros(1, 9).int(), "index": torch.zeros(1, 4).int()},
            {"mode": "median"},
            "unknown mode 'median'",
        ),
    ],
)
def test_what_the_op_set_forbids_is_refused(ops: Ops, op: str, feeds: dict, attributes: dict, message: str):
    with pytest.raises(RuntimeError, match=message):
        ops(op, feeds, **attributes)
