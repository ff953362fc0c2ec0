"""Give the op set's nodes function bodies of standard ops, so that stock runtimes can run them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from tmdeploy.errors import ExportError
from tmdeploy.graph.base import Change
from tmdeploy.ops import DOMAIN, VERSION
from tmdeploy.ops.bodies import function_body


@dataclass(frozen=True)
class AttachBodies:
    """Give every op of the domain that the graph uses its body.

    Attributes:
        opset: Version of the standard operators.
    """

    opset: int
    name = "attach-bodies"

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Change]:
        """In place.

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
            function = ir.serde.deserialize_function(function_body(op, attributes, self.opset))
            model.functions[function.identifier()] = function
        if seen:
            model.graph.opset_imports[DOMAIN] = VERSION
        return model, Change(self.name, "ops got function bodies", {"ops": len(seen)})
