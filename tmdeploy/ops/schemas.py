"""ONNX schemas of the op set, for the checker, shape inference and the exporter."""

from __future__ import annotations

import functools

import onnx
import onnx.defs
from onnx.defs import OpSchema

from tmdeploy.ops import DOMAIN, VERSION

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
_SINGLE = "tensor(float)"
_INT32 = "tensor(int32)"
_INT64 = "tensor(int64)"
_OPTIONAL = OpSchema.FormalParameterOption.Optional


def _int(name: str, default: int, description: str) -> OpSchema.Attribute:
    return OpSchema.Attribute(name, onnx.helper.make_attribute(name, default), description)


def _float(name: str, default: float, description: str) -> OpSchema.Attribute:
    return OpSchema.Attribute(name, onnx.helper.make_attribute(name, default), description)


def _string(name: str, default: str, description: str) -> OpSchema.Attribute:
    return OpSchema.Attribute(name, onnx.helper.make_attribute(name, default), description)


_PLAN_OUTPUTS = [
    OpSchema.FormalParameter("map", _INT32, "[B, N], output slot of every token; -1 = dropped"),
    OpSchema.FormalParameter("index", _INT32, "[B, M], the anchor token of every slot; -1 = none"),
    OpSchema.FormalParameter("sim", _SINGLE, "[B, N], similarity to the destination for merged tokens, 1 elsewhere"),
]
_PLANNER_ATTRIBUTES = [
    _int("num_prefix", 1, "prefix tokens: never merged, always first"),
    _float("metric_eps", 0.0, "vectors with a norm up to this have similarity 0"),
    _int("deterministic", 1, "accumulate similarities in float64"),
]


def _token_match() -> OpSchema:
    return OpSchema(
        "TokenMatch",
        DOMAIN,
        VERSION,
        doc="Plan a bipartite match: the N - M most similar pairs merge. docs/ops.md",
        inputs=[
            OpSchema.FormalParameter("metric", "T", "[B, N, C]"),
            OpSchema.FormalParameter("slots", _INT64, "[M], Range(0, M): carries the output count as a dimension"),
        ],
        outputs=_PLAN_OUTPUTS,
        type_constraints=[("T", _FLOATS, "metric")],
        attributes=[*_PLANNER_ATTRIBUTES, _string("order", "tome", "slots after the prefix: tome, tome_unsorted")],
    )


def _token_select() -> OpSchema:
    return OpSchema(
        "TokenSelect",
        DOMAIN,
        VERSION,
        doc="Plan a selection: the highest scores stay. docs/ops.md",
        inputs=[
            OpSchema.FormalParameter("score", "T", "[B, N]"),
            OpSchema.FormalParameter("slots", _INT64, "[M], Range(0, M): carries the output count as a dimension"),
            OpSchema.FormalParameter("metric", "T1", "[B, N, C], for leftover=nearest", param_option=_OPTIONAL),
            OpSchema.FormalParameter(
                "kept", _INT64, "[K], Range(0, K): slots without the fused one", param_option=_OPTIONAL
            ),
        ],
        outputs=[*_PLAN_OUTPUTS, OpSchema.FormalParameter("count", _INT32, "[B], valid slots")],
        type_constraints=[("T", _FLOATS, "score"), ("T1", _FLOATS, "metric")],
        attributes=[
            *_PLANNER_ATTRIBUTES,
            _string("leftover", "drop", "what happens to the rest: drop, fuse, nearest"),
            _string("order", "score", "kept tokens by descending score, or by index"),
        ],
    )


def _token_reduce() -> OpSchema:
    return OpSchema(
        "TokenReduce",
        DOMAIN,
        VERSION,
        doc="Apply a plan: the tokens of every slot become one. docs/ops.md",
        inputs=[
            OpSchema.FormalParameter("x", "T", "[B, N, F]"),
            OpSchema.FormalParameter("map", _INT32, "[B, N]"),
            OpSchema.FormalParameter("index", _INT32, "[B, M]"),
            OpSchema.FormalParameter("weight", _SINGLE, "[B, N]; default 1", param_option=_OPTIONAL),
        ],
        outputs=[
            OpSchema.FormalParameter("y", "T", "[B, M, F]"),
            OpSchema.FormalParameter("wsum", _SINGLE, "[B, M], sum of the weights"),
        ],
        type_constraints=[("T", _FLOATS, "x and y")],
        attributes=[_string("mode", "wmean", "wmean, sum, mean, max, anchor, mlerp, mlerp_anchor")],
    )


@functools.cache
def register_schemas() -> None:
    """Register the op set with ONNX, once a process."""
    for schema in (_token_match(), _token_select(), _token_reduce()):
        onnx.defs.register_schema(schema)
