"""Standard ops in place of the op set's nodes, as few kernels as can be, for graphs that are compiled."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.inliner

from tmdeploy.graph.base import Change
from tmdeploy.graph.onnx_file import standard_opset
from tmdeploy.ops import DOMAIN
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET, function_body


class ExpandOps:
    """Replace every call of a function by its body; nothing but standard ops remains.

    The ops of the domain get the counting bodies instead of the file's, because those need fewer kernels.
    Nodes of the domain are replaced here, not by `onnx.inliner`, so that what comes from `block3/TokenMatch` is called
    `block3/TokenMatch/...`: TensorRT names the nodes behind each kernel, and so the kernels of a step can be counted.
    """

    name = "expand-ops"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model."""
        bodies = {function.name: function for function in model.functions if function.domain == DOMAIN}
        opset = standard_opset(model)
        calls = sum(node.domain == DOMAIN for node in model.graph.node)
        nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            if node.domain == DOMAIN:
                nodes.extend(_expanded(node, _engine_body(node, opset) or bodies[node.op_type]))
            else:
                nodes.append(node)
        others = [function for function in model.functions if function.domain != DOMAIN]
        flat = onnx.ModelProto()
        flat.CopyFrom(model)
        del flat.graph.node[:], flat.functions[:], flat.graph.value_info[:]
        flat.graph.node.extend(nodes)
        flat.functions.extend(others)
        imports = [entry for entry in flat.opset_import if entry.domain != DOMAIN]
        del flat.opset_import[:]
        flat.opset_import.extend(imports)
        counts = {"nodes": calls, "functions": len(others)}
        done = onnx.inliner.inline_local_functions(flat) if others else flat
        return done, Change(self.name, "calls became the bodies with the fewest kernels", counts)


def _engine_body(node: onnx.NodeProto, opset: int) -> onnx.FunctionProto | None:
    """The body with the fewest kernels; None for an op or an opset that this version has none for."""
    if not MIN_OPSET <= opset <= MAX_OPSET:
        return None
    known = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in known.items()}
    try:
        return function_body(node.op_type, attributes, opset, counting=True)
    except (KeyError, ValueError):
        return None


def _expanded(call: onnx.NodeProto, function: onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a body, which has neither attribute references nor subgraphs (ops/bodies)."""
    names = {"": ""}
    given = [*call.input, *[""] * (len(function.input) - len(call.input))]
    names.update(zip(function.input, given, strict=True))
    outputs = zip(function.output, call.output, strict=False)
    names.update({formal: actual for formal, actual in outputs if actual})
    for node in function.node:
        fresh = onnx.NodeProto()
        fresh.CopyFrom(node)
        for values in (fresh.input, fresh.output):
            renamed = [names.setdefault(name, f"{call.name}/{name}") for name in values]
            del values[:]
            values.extend(renamed)
        fresh.name = f"{call.name}/{node.output[0]}"
        yield fresh
