"""Attach the function bodies, or inline them (`graph.inline`)."""

from __future__ import annotations

import onnx_ir as ir

from tmdeploy.errors import ExportError
from tmdeploy.graph.inline import inline_bodies
from tmdeploy.ops import DOMAIN, VERSION
from tmdeploy.ops.bodies import function_body

__all__ = ["attach_bodies", "inline_bodies"]


def attach_bodies(model: ir.Model, opset: int) -> None:
    """Give every op of the domain that the graph uses its body, so that stock runtimes can run it.

    Raises:
        ExportError: Nodes of one op differ in their attributes, which one function cannot serve.
    """
    seen: dict[str, dict[str, int | float | str]] = {}
    for node in model.graph:
        if node.domain != DOMAIN:
            continue
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if seen.setdefault(node.op_type, attributes) != attributes:
            raise ExportError(f"nodes of {node.op_type} differ in their attributes, which one body cannot serve")
    for op, attributes in seen.items():
        function = ir.serde.deserialize_function(function_body(op, attributes, opset))
        model.functions[function.identifier()] = function
    if seen:
        model.graph.opset_imports[DOMAIN] = VERSION
