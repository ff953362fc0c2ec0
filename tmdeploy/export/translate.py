"""How the exporter writes the op set: one ONNX node of domain `tmdeploy` for each call of a reference op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxscript
import torch

from tmdeploy.ops.schemas import register_schemas
from tmdeploy.ops.spec import DOMAIN, OPS, VERSION, OpSpec


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """`custom_translation_table` for `torch.onnx.export`.

    Plain functions that build one node, not onnxscript functions: the exporter inlines those, and fails on several
    outputs.
    """
    register_schemas()
    return {getattr(torch.ops.tmdeploy, spec.torch_name).default: _translation(spec) for spec in OPS.values()}


def _translation(spec: OpSpec[Any]) -> Callable[..., Any]:
    make_node = getattr(onnxscript.values.Opset(DOMAIN, VERSION), spec.name)

    def translate(*args: Any, **kwargs: Any) -> Any:
        inputs, attributes = spec.bind(args, kwargs)
        return make_node(*inputs.values(), **spec.attributes(**attributes).values())

    return spec.sign(translate, lambda tensor: Any, Any)
