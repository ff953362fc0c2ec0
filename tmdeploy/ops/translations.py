"""What `torch.onnx.export` writes for the op set when a user calls it on a patched module: standard ONNX ops.

`tmdeploy.export` writes one node a call instead (export/translate.py), with a runtime schedule and the proof. Importing
this module enters the ops into the registry that torch's exporter reads; it needs onnxscript, as that exporter does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

import onnx
from onnxscript import FLOAT, INT32, INT64, values
from onnxscript.function_libs.torch_lib.registration import torch_op

from tmdeploy.ops.bodies import MIN_OPSET, function_body
from tmdeploy.ops.spec import DOMAIN, OPS, OpSpec, Tensor, Value


def _annotation(tensor: Tensor) -> Any:
    kind = {"int32": INT32, "int64": INT64}.get(tensor.type, FLOAT)
    return Optional[kind] if tensor.optional else kind  # noqa: UP045 - what onnxscript reads


def _translate(spec: OpSpec[Any]) -> None:
    def translate(*args: Any, **kwargs: Any) -> Any:
        inputs, attributes = spec.bind(args, kwargs)
        return _inline(spec.name, inputs.values(), attributes)

    returns: Any = tuple[tuple(map(_annotation, spec.outputs))]  # type: ignore[misc]
    torch_op(f"{DOMAIN}::{spec.torch_name}", trace_only=True)(spec.sign(translate, _annotation, returns))


def _inline(op: str, inputs: Iterable[Any], attributes: Mapping[str, Value]) -> Any:
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


for _spec in OPS.values():
    _translate(_spec)
