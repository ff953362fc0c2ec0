"""What happens to the graph before TensorRT's parser sees it: schedule, batch, function bodies, names, float64."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper

from tmdeploy.ops import DOMAIN
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET, function_body

PLUGIN_NAMESPACE = "tmdeploy"


def set_schedule_input(model: onnx.ModelProto, name: str, *, runtime: bool) -> None:
    """Make the optional input of the schedule a real one, or the constant it defaults to.

    TensorRT's parser knows no inputs with defaults: it takes those for constants.
    """
    graph = model.graph
    if runtime:
        kept = [tensor for tensor in graph.initializer if tensor.name != name]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    else:
        inputs = [value for value in graph.input if value.name != name]
        del graph.input[:]
        graph.input.extend(inputs)


def set_static_batch(model: onnx.ModelProto, name: str, batch: int) -> None:
    """Fix the batch, so that TensorRT computes every shape while it builds."""
    value = next(value for value in model.graph.input if value.name == name)
    value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    value.type.tensor_type.shape.dim[0].dim_value = batch


def mark_plugins(model: onnx.ModelProto) -> tuple[str, ...]:
    """Send the ops of the domain to the plugin: with this attribute the parser prefers it to the function body.

    Returns:
        The names of the nodes.
    """
    marked = [node for node in model.graph.node if node.domain == DOMAIN]
    for node in marked:
        node.attribute.append(onnx.helper.make_attribute("plugin_namespace", PLUGIN_NAMESPACE))
    return tuple(node.name for node in marked)


def inline_ops(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every call of a function by its body; nothing but standard ops remains.

    The ops of the domain get the counting bodies instead of the file's, because those need fewer kernels.
    Nodes of the domain are replaced here, not by `onnx.inliner`, so that what comes from `block3/TokenMatch` is called
    `block3/TokenMatch/...`: TensorRT names the nodes behind each kernel, and so the kernels of a step can be counted.
    """
    bodies = {function.name: function for function in model.functions if function.domain == DOMAIN}
    opset = standard_opset(model)
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
    return onnx.inliner.inline_local_functions(flat) if others else flat


def standard_opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 1 where the file does not say."""
    return next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 1)


def narrow_doubles(model: onnx.ModelProto) -> int:
    """Turn float64 into float32, which is what TensorRT would do without a word.

    Returns:
        Tensors and casts that were float64.
    """
    changed = 0
    for tensor in [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute)]:
        if tensor.data_type == TensorProto.DOUBLE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
            changed += 1
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
                changed += 1
    return changed


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: TensorRT reports kernels, errors and timings by it."""
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            node.name = next(output for output in node.output if output)
        seen.add(node.name)


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
