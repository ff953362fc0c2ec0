"""What `torch.onnx.export` writes for the op set when a user calls it on a patched module: standard ONNX ops.

`tmdeploy.export` writes one node a call instead (export/translate.py), with a runtime schedule and the proof. Importing
this module enters the ops into the registry that torch's exporter reads; it needs onnxscript, as that exporter does.
"""

from __future__ import annotations

from typing import Any, Optional

import onnx
from onnxscript import FLOAT, INT32, INT64, values
from onnxscript.function_libs.torch_lib.registration import torch_op

from tmdeploy.ops.bodies import MIN_OPSET, function_body

_Attributes = dict[str, int | float | str]


@torch_op("tmdeploy::token_match", trace_only=True)
def token_match(
    metric: FLOAT,
    slots: INT64,
    num_prefix: int = 1,
    order: str = "tome",
    metric_eps: float = 0.0,
    deterministic: bool = True,
) -> tuple[INT32, INT32, FLOAT]:
    """As ops/reference/token_match.py."""
    attributes: _Attributes = {
        "num_prefix": num_prefix,
        "order": order,
        "metric_eps": metric_eps,
        "deterministic": int(deterministic),
    }
    made: Any = _inline("TokenMatch", (metric, slots), attributes)
    return made  # type: ignore[no-any-return]


@torch_op("tmdeploy::token_select", trace_only=True)
def token_select(
    score: FLOAT,
    slots: INT64,
    metric: Optional[FLOAT] = None,  # noqa: UP045 - what onnxscript reads
    kept: Optional[INT64] = None,  # noqa: UP045
    num_prefix: int = 1,
    leftover: str = "drop",
    order: str = "score",
    metric_eps: float = 0.0,
    deterministic: bool = True,
) -> tuple[INT32, INT32, FLOAT, INT32]:
    """As ops/reference/token_select.py."""
    attributes: _Attributes = {
        "num_prefix": num_prefix,
        "leftover": leftover,
        "order": order,
        "metric_eps": metric_eps,
        "deterministic": int(deterministic),
    }
    made: Any = _inline("TokenSelect", (score, slots, metric, kept), attributes)
    return made  # type: ignore[no-any-return]


@torch_op("tmdeploy::token_reduce", trace_only=True)
def token_reduce(
    x: FLOAT,
    map: INT32,  # noqa: A002 - the op's input name
    index: INT32,
    weight: Optional[FLOAT] = None,  # noqa: UP045
    mode: str = "wmean",
) -> tuple[FLOAT, FLOAT]:
    """As ops/reference/token_reduce.py."""
    made: Any = _inline("TokenReduce", (x, map, index, weight), {"mode": mode})
    return made  # type: ignore[no-any-return]


def _inline(op: str, inputs: tuple[Any, ...], attributes: _Attributes) -> Any:
    """The op's body, node by node, where the exporter is."""
    body = function_body(op, attributes, MIN_OPSET)
    ops = values.Opset("", MIN_OPSET)
    known: dict[str, Any] = dict(zip(body.input, inputs, strict=False))
    for node in body.node:
        given = [known.get(name) if name else None for name in node.input]
        made = getattr(ops, node.op_type)(*given, **{entry.name: _value(entry) for entry in node.attribute})
        known.update(zip(node.output, made if isinstance(made, (tuple, list)) else (made,), strict=False))
    return tuple(known[name] for name in body.output)


def _value(entry: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(entry)
    return value.decode() if isinstance(value, bytes) else value
