"""Makes a function that computes an op a `torch.library` custom op: schema and fake kernel come from the op's spec."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import torch

from tmdeploy.ops.spec import DOMAIN, Attribute, OpSpec
from tmdeploy.ops.spec import Tensor as TensorSpec

_TYPES = {bool: "bool", int: "SymInt", float: "float", str: "str"}
_DTYPES = {"int32": torch.int32, "int64": torch.int64, "float32": torch.float32}


def reference(spec: OpSpec[Any]) -> Callable[[Callable[..., tuple[torch.Tensor, ...]]], Any]:
    """Decorate the function that computes an op.

    The function takes the op's inputs, None for one that is not given, and then one object of `spec.attributes`. The
    op, `torch.ops.tmdeploy.<name>`, takes the attributes one by one, as `spec.signature` has them. What stands in the
    function's place is torch's `CustomOpDef`.
    """

    def register(compute: Callable[..., tuple[torch.Tensor, ...]]) -> Any:
        @functools.wraps(compute)
        def run(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
            inputs, values = spec.bind(args, kwargs)
            return compute(*inputs.values(), spec.attributes(**values))

        def fake(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
            return _empty_outputs(spec, spec.bind(args, kwargs)[0])

        name = f"{DOMAIN}::{spec.torch_name}"
        op = torch.library.custom_op(name, run, mutates_args=(), schema=_schema(spec))
        op.register_fake(fake)
        return op

    return register


def _schema(spec: OpSpec[Any]) -> str:
    arguments = [*map(_input, spec.inputs), *(_attribute(*entry) for entry in spec.attributes.declared().items())]
    return f"({', '.join(arguments)}) -> ({', '.join('Tensor' for _ in spec.outputs)})"


def _input(tensor: TensorSpec) -> str:
    return f"Tensor? {tensor.name}=None" if tensor.optional else f"Tensor {tensor.name}"


def _attribute(name: str, attribute: Attribute) -> str:
    default = attribute.default
    # a text in double quotes; True and 1.0 as Python writes them
    return f"{_TYPES[type(default)]} {name}={json.dumps(default) if isinstance(default, str) else repr(default)}"


def _empty_outputs(spec: OpSpec[Any], inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Outputs of the right shapes and types, with nothing in them."""
    sizes: dict[str, Any] = {}
    dtypes: dict[str, torch.dtype] = dict(_DTYPES)
    for tensor in spec.inputs:
        if (value := inputs[tensor.name]) is not None:
            dtypes.setdefault(tensor.type, value.dtype)
            for symbol, size in zip(tensor.dims, value.shape, strict=True):
                sizes.setdefault(symbol, size)
    first = inputs[spec.inputs[0].name]
    return tuple(
        first.new_empty([sizes[symbol] for symbol in tensor.dims], dtype=dtypes[tensor.type]) for tensor in spec.outputs
    )
