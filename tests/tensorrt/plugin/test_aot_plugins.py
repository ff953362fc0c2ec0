"""The ahead-of-time plugins from ONNX node to kernel, through NVIDIA's Python layer, on the emulated entry kernels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.strategies import DTYPES
from tests.tensorrt.plugin.bindings import newest
from tests.tensorrt.plugin.driver import Dimension, build_node, node
from tests.tensorrt.plugin.entry_library import EntryLibrary
from tmdeploy.errors import UnsupportedModel
from tmdeploy.ops.reference import token_match, token_reduce, token_select
from tmdeploy.tensorrt.plugin import PtxLibrary
from tmdeploy.tensorrt.plugin.operators import PLUGIN_OPS

MATCH = ["map", "index", "sim"]
SELECT = [*MATCH, "count"]
BATCH: Dimension = ("batch", 8)


def assert_equal(got: list[Tensor], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), f"{(a != b).sum().item()} of {a.numel()} differ"


def match_node(**attributes: Any) -> Any:
    return node("TokenMatch", ["metric", "slots"], MATCH, **attributes)


@newest
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("channels", "most", "kernel"), [(64, 197, "_fast"), (64, 300, ""), (12, 197, "")], ids=["fast", "many", "narrow"]
)
def test_match(
    bindings: SimpleNamespace,
    entries: EntryLibrary,
    library: PtxLibrary,
    dtype: torch.dtype,
    channels: int,
    most: int,
    kernel: str,
) -> None:
    shapes: list[list[Dimension]] = [[BATCH, ("tokens", most), channels], [("slots", most)]]
    built = build_node(bindings, match_node(order="tome_unsorted", num_prefix=2), shapes, [dtype, torch.int64])
    suffix = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    assert built.kernel == f"tmdeploy_match_{suffix}{kernel}"
    assert built.ptx == library.file("match").modules[built.kernel].text
    # one engine, several batches, image sizes and r
    for batch, tokens, slots in ((1, most, most - 13), (3, 50, 26), (2, 50, 50)):
        metric = torch.randn(batch, tokens, channels).to(dtype)
        dimensions = {"batch": batch, "tokens": tokens, "slots": slots}
        got = built.run(entries, [metric, torch.arange(slots)], dimensions)
        assert_equal(got, token_match(metric, torch.arange(slots), 2, "tome_unsorted"))


@pytest.mark.parametrize(
    "attributes",
    [{}, {"num_prefix": 0}, {"metric_eps": 2.5}, {"metric_eps": -1.0}, {"order": "tome"}, {"deterministic": 1}],
    ids=str,
)
def test_match_attributes(bindings: SimpleNamespace, entries: EntryLibrary, attributes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    metric, slots = torch.randn(2, 33, 6), torch.arange(20)
    metric[0, 5] = 0.0
    built = build_node(bindings, match_node(**attributes), [[2, 33, 6], [20]], [torch.float32, torch.int64])
    keywords = {**attributes, "deterministic": True}
    assert_equal(built.run(entries, [metric, slots], {}), token_match(metric, slots, **keywords))


@newest
@pytest.mark.parametrize("leftover", ["drop", "fuse", "nearest"])
@pytest.mark.parametrize("order", ["score", "index"])
@pytest.mark.parametrize("types", [(torch.float32, torch.float16), (torch.float16, torch.bfloat16)], ids=str)
def test_select(
    bindings: SimpleNamespace,
    entries: EntryLibrary,
    leftover: str,
    order: str,
    types: tuple[torch.dtype, torch.dtype],
) -> None:
    optional = {"drop": [], "fuse": ["", "kept"], "nearest": ["metric"]}[leftover]
    marked = node("TokenSelect", ["score", "slots", *optional], SELECT, leftover=leftover, order=order)
    for channels in (64, 10):
        shapes: list[list[Dimension]] = [[BATCH, ("tokens", 256)], [("slots", 256)]]
        dtypes = [types[0], torch.int64]
        if leftover == "fuse":
            shapes, dtypes = [*shapes, [("kept", 256)]], [*dtypes, torch.int64]
        if leftover == "nearest":
            shapes, dtypes = [*shapes, [BATCH, ("tokens", 256), channels]], [*dtypes, types[1]]
        built = build_node(bindings, marked, shapes, dtypes)
        if leftover == "nearest":
            assert built.kernel.endswith("_fast") == (channels == 64)
        for batch, tokens, stay in ((2, 197, 138), (1, 256, 255), (3, 17, 17)):
            total = stay + (leftover == "fuse" and stay < tokens)
            score, metric = torch.randn(batch, tokens).to(types[0]), torch.randn(batch, tokens, channels).to(types[1])
            slots, kept = torch.arange(total), torch.arange(stay)
            third = {"drop": [], "fuse": [kept], "nearest": [metric]}[leftover]
            dimensions = {"batch": batch, "tokens": tokens, "slots": total, "kept": stay}
            got = built.run(entries, [score, slots, *third], dimensions)
            expected = token_select(
                score,
                slots,
                metric if leftover == "nearest" else None,
                kept if leftover == "fuse" else None,
                leftover=leftover,
                order=order,
            )
            assert_equal(got, expected)


@newest
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["wmean", "sum", "anchor", "mean", "max"])
def test_reduce(bindings: SimpleNamespace, entries: EntryLibrary, dtype: torch.dtype, mode: str) -> None:
    for weighted in (False, True):
        inputs = ["x", "map", "index", *(["size"] if weighted else [])]
        for features, variant in ((192, "_192"), (384, "_384"), (40, "_wide"), (37, "")):
            shapes: list[list[Dimension]] = [
                [BATCH, ("tokens", 197), features],
                [BATCH, ("tokens", 197)],
                [BATCH, ("m", 197)],
            ]
            dtypes = [dtype, torch.int32, torch.int32]
            if weighted:
                shapes, dtypes = [*shapes, [BATCH, ("tokens", 197)]], [*dtypes, torch.float32]
            built = build_node(bindings, node("TokenReduce", inputs, ["y", "wsum"], mode=mode), shapes, dtypes)
            assert built.kernel.endswith(f"{variant}{'_weighted' if weighted else ''}")
            for batch, tokens, slots in ((2, 61, 40), (1, 20, 20)):
                plan, index, _ = token_match(torch.randn(batch, tokens, 8), torch.arange(slots))
                x, weight = torch.randn(batch, tokens, features).to(dtype), torch.rand(batch, tokens) + 0.5
                third = [weight] if weighted else []
                got = built.run(entries, [x, plan, index, *third], {"batch": batch, "tokens": tokens, "m": slots})
                assert_equal(got, token_reduce(x, plan, index, weight if weighted else None, mode))


@newest
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["mlerp", "mlerp_anchor"])
def test_reduce_mlerp(bindings: SimpleNamespace, entries: EntryLibrary, dtype: torch.dtype, mode: str) -> None:
    plan, index, _ = token_match(torch.randn(2, 30, 8), torch.arange(20))
    x = torch.randn(2, 30, 48).to(dtype)
    marked = node("TokenReduce", ["x", "map", "index"], ["y", "wsum"], mode=mode)
    built = build_node(bindings, marked, [[2, 30, 48], [2, 30], [2, 20]], [dtype, torch.int32, torch.int32])
    assert built.kernel.endswith("_mlerp")
    y, wsum = built.run(entries, [x, plan, index], {})
    expected_y, expected_wsum = token_reduce(x, plan, index, None, mode)
    assert torch.equal(wsum, expected_wsum)
    # norms are sums over features, in another order than torch's
    eps = torch.finfo(dtype).eps
    assert torch.allclose(y.float(), expected_y.float(), rtol=2 * eps, atol=1e-6)


def test_reduce_spreads_over_blocks_as_the_launcher_does(bindings: SimpleNamespace) -> None:
    shapes: list[list[Dimension]] = [[BATCH, ("tokens", 4096), 8], [BATCH, ("tokens", 4096)], [BATCH, ("m", 4096)]]
    marked = node("TokenReduce", ["x", "map", "index"], ["y", "wsum"])
    built = build_node(bindings, marked, shapes, [torch.float32, torch.int32, torch.int32])
    # slots_of_a_block of token_reduce.cu
    for batch, tokens, slots, expected in (
        (1, 197, 184, 4), (8, 257, 256, 8), (8, 257, 255, 4), (64, 197, 128, 16), (64, 197, 127, 8), (1, 1025, 900, 32),
        (1, 1024, 900, 4),
    ):  # fmt: skip
        dimensions = {"batch": batch, "tokens": tokens, "m": slots}
        assert built.extras[4].expr.evaluate(dimensions) == expected
        assert built.launch.grid_x.expr.evaluate(dimensions) == batch * -(-slots // expected)


def test_what_the_rules_forbid_reaches_the_output_as_nan(bindings: SimpleNamespace, entries: EntryLibrary) -> None:
    """More removed than half: no launcher refuses it at run time, the entry and then the reduce do."""
    dynamic: list[list[Dimension]] = [[1, 20, 8], [("m", 20)]]
    built = build_node(bindings, match_node(), dynamic, [torch.float32, torch.int64])
    plan, index, sim = built.run(entries, [torch.randn(1, 20, 8), torch.arange(5)], {"m": 5})
    assert (plan == -2).all()
    assert (index == -2).all()
    assert sim.isnan().all()
    reduce = node("TokenReduce", ["x", "map", "index"], ["y", "wsum"])
    step = build_node(bindings, reduce, [[1, 20, 8], [1, 20], [1, 5]], [torch.float32, torch.int32, torch.int32])
    y, wsum = step.run(entries, [torch.randn(1, 20, 8), plan, index], {})
    assert y.isnan().all()
    assert wsum.isnan().all()
    score = node("TokenSelect", ["score", "slots"], SELECT)
    chosen = build_node(bindings, score, [[1, 20], [("m", 30)]], [torch.float32, torch.int64])
    plan, index, _, count = chosen.run(entries, [torch.randn(1, 20), torch.arange(25)], {"m": 25})
    assert (plan == -2).all()
    assert (index == -2).all()
    assert count.item() == 0


def test_no_image_is_no_work(bindings: SimpleNamespace, entries: EntryLibrary) -> None:
    built = build_node(bindings, match_node(), [[BATCH, 20, 8], [15]], [torch.float32, torch.int64])
    assert built.launch.grid_x.expr.evaluate({"batch": 0}) == 1  # a grid of 0 is an error of CUDA
    plan, _, _ = built.run(entries, [torch.empty(0, 20, 8), torch.arange(15)], {"batch": 0})
    assert plan.shape == (0, 20)


def test_more_tokens_than_the_kernels_take_fail_the_build(bindings: SimpleNamespace) -> None:
    with pytest.raises(UnsupportedModel, match="5000 tokens are more than the 4096"):
        build_node(bindings, match_node(), [[1, ("n", 5000), 8], [4000]], [torch.float32, torch.int64])


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_shared_memory_is_enough_and_fits_every_gpu(
    bindings: SimpleNamespace, entries: EntryLibrary, prefix: int
) -> None:
    """For every number of tokens: at least what the kernel uses by its own C++, at most 48 KiB."""
    f32, i32, i64 = torch.float32, torch.int32, torch.int64
    select = {"num_prefix": prefix, "leftover": "nearest"}
    cases: list[tuple[Any, list[list[Dimension]], list[torch.dtype], tuple[str, tuple[int, ...]]]] = [
        (match_node(num_prefix=prefix), [[1, ("n", 4096), 8], [9]], [f32, i64], ("match", (prefix, 0))),
        (match_node(num_prefix=prefix), [[1, ("n", 256), 64], [9]], [f32, i64], ("match", (prefix, 1))),
        (
            node("TokenSelect", ["s", "slots"], SELECT, num_prefix=prefix),
            [[1, ("n", 4096)], [9]],
            [f32, i64],
            ("select", (prefix, 0, 0)),
        ),
        (
            node("TokenSelect", ["s", "slots", "metric"], SELECT, **select),
            [[1, ("n", 4096)], [9], [1, ("n", 4096), 8]],
            [f32, i64, f32],
            ("select", (prefix, 1, 0)),
        ),
        (
            node("TokenSelect", ["s", "slots", "metric"], SELECT, **select),
            [[1, ("n", 256)], [9], [1, ("n", 256), 64]],
            [f32, i64, f32],
            ("select", (prefix, 1, 1)),
        ),
        (
            node("TokenReduce", ["x", "map", "index"], ["y", "wsum"]),
            [[1, ("n", 4096), 8], [1, ("n", 4096)], [1, 9]],
            [f32, i32, i32],
            ("reduce", (32,)),
        ),
    ]
    for marked, shapes, dtypes, (op, values) in cases:
        built = build_node(bindings, marked, shapes, dtypes)
        most = next(extent[1] for extent in shapes[0] if isinstance(extent, tuple))
        for tokens in range(prefix, most + 1):
            described = built.launch.shared_mem.expr.evaluate({"n": tokens})
            assert entries.needed_bytes(op, tokens, *values) <= described <= 48 * 1024, (built.kernel, tokens)


def test_double_is_not_offered(bindings: SimpleNamespace) -> None:
    for plugin in PLUGIN_OPS:
        definition = getattr(bindings.trtp.op.tmdeploy_aot, plugin.name)
        assert list(definition.input_attrs) == ["settings"]
        assert definition.aot_impl_func is not None
        assert definition.impl_func is None
        kinds = {comb for c in definition.autotune_func(*[None] * (len(plugin.inputs) + 1)) for comb in c.io_types}
        assert kinds <= {"FP32", "FP16", "BF16", "INT32", "INT64"}
