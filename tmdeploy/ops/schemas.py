"""ONNX schemas of the op set, for the checker, shape inference and the exporter."""

from __future__ import annotations

import functools
from typing import Any

import onnx
import onnx.defs
from onnx.defs import OpSchema

from tmdeploy.ops.spec import DOMAIN, OPS, VERSION, OpSpec, Tensor

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
_TYPES = {"float32": "tensor(float)", "int32": "tensor(int32)", "int64": "tensor(int64)"}


def _parameter(tensor: Tensor) -> OpSchema.FormalParameter:
    option = OpSchema.FormalParameterOption
    return OpSchema.FormalParameter(
        tensor.name,
        _TYPES.get(tensor.type, tensor.type),
        f"{tensor.shape}, {tensor.description}",
        param_option=option.Optional if tensor.optional else option.Single,
    )


def _schema(spec: OpSpec[Any]) -> OpSchema:
    named: dict[str, list[str]] = {}
    for tensor in (*spec.inputs, *spec.outputs):
        if tensor.type not in _TYPES:
            named.setdefault(tensor.type, []).append(tensor.name)
    defaults = spec.attributes().values()
    # A node's attributes are written in the order of ONNX's hash map, which depends on this one. Texts go last, as they
    # always did, so that the same export gives the same bytes.
    attributes = sorted(spec.attributes.declared().items(), key=lambda entry: bool(entry[1].choices))
    return OpSchema(
        spec.name,
        DOMAIN,
        VERSION,
        doc=f"{spec.description}. docs/ops.md",
        inputs=[_parameter(tensor) for tensor in spec.inputs],
        outputs=[_parameter(tensor) for tensor in spec.outputs],
        type_constraints=[(kind, _FLOATS, " and ".join(names)) for kind, names in named.items()],
        attributes=[
            OpSchema.Attribute(
                name,
                onnx.helper.make_attribute(name, defaults[name]),
                ": ".join([attribute.description, *([", ".join(attribute.choices)] if attribute.choices else [])]),
            )
            for name, attribute in attributes
        ],
    )


@functools.cache
def register_schemas() -> None:
    """Register the op set with ONNX, once a process."""
    for spec in OPS.values():
        onnx.defs.register_schema(_schema(spec))
