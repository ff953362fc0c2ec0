"""Which part of a transformer an ONNX node is: told by its op, its neighbours and the names of the weights it reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

import onnx

from tmdeploy.tensorrt.record.layers import step_part

_PRODUCTS = {"MatMul", "Gemm"}
_ACTIVATIONS = {"Gelu", "Erf", "Relu", "Sigmoid", "Tanh", "HardSwish"}
_BY_OP = {"Softmax": "attention", "LayerNormalization": "layernorm", "Conv": "embedding"} | dict.fromkeys(
    _ACTIVATIONS, "activation"
)
# As timm, DeiT and Hugging Face name their modules.
_BY_WEIGHT = (
    ("attention", re.compile(r"[./](attn|attention|self_attn)[./]")),
    ("mlp", re.compile(r"[./](mlp|intermediate|fc1|fc2)[./]")),
    ("head", re.compile(r"(^|[./])(head|head_dist|classifier)[./]")),
)


def node_roles(model: onnx.ModelProto, deciding: Collection[str] = ()) -> dict[str, str]:
    """Roles by node name; nodes without one, and those of reduction steps, are left out.

    A product of two computed tensors is attention's. A product with a weight belongs where the weight's name says.
    Where the exporter lost it (transposed weights), the nearest products, softmax, normalisations and activations
    before and behind it tell: an activation makes it the MLP's, a product of two computed tensors attention's.

    Args:
        model: As TensorRT's parser gets it.
        deciding: Nodes that compute for planners alone; they are `metric`, whatever else they look like.
    """
    graph = _Graph(model)
    roles = {}
    for node in model.graph.node:
        if step_part(node.name, ())[0] is not None:
            continue
        role = graph.role_of_product(node) if node.op_type in _PRODUCTS else _BY_OP.get(node.op_type)
        role = "metric" if node.name in deciding else role
        if role is not None:
            roles[node.name] = role
    return roles


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._weights = {tensor.name for tensor in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def role_of_product(self, node: onnx.NodeProto) -> str:
        known = [name for name in node.input if name in self._weights]
        if not known:
            return "attention"
        for role, pattern in _BY_WEIGHT:
            if any(pattern.search(name) for name in known):
                return role
        before, behind = self._anchors(node, self._before), self._anchors(node, self._behind)
        around = before + behind
        if any(anchor.op_type in _ACTIVATIONS for anchor in around):
            return "mlp"
        if any(anchor.op_type == "Softmax" or self._computed(anchor) for anchor in around):
            return "attention"
        return "linear"

    def _computed(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _PRODUCTS and not any(name in self._weights for name in node.input)

    def _before(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        return (self._makers[name] for name in node.input if name in self._makers)

    def _behind(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        return (reader for name in node.output for reader in self._readers.get(name, ()))

    def _anchors(
        self, start: onnx.NodeProto, following: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto]]
    ) -> list[onnx.NodeProto]:
        """The nearest nodes in one direction that have a role by their op, not looking into reduction steps."""
        found, seen, pending = [], {start.name}, list(following(start))
        while pending:
            node = pending.pop()
            if node.name in seen or step_part(node.name, ())[0] is not None:
                continue
            seen.add(node.name)
            if node.op_type in _PRODUCTS or node.op_type in _BY_OP:
                found.append(node)
            else:
                pending += following(node)
        return found
