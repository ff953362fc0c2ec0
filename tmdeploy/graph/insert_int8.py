"""QuantizeLinear and DequantizeLinear in front of the chosen nodes: by ONNX Runtime's quantiser, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tmdeploy.graph.base import Change

PRODUCTS = ("MatMul", "Gemm", "Conv")
# TensorRT's rules: symmetric, no pair shared between nodes, no int32 biases, and float results, which bias, GELU and
# residual read at full resolution.
_OPTIONS: dict[str, Any] = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "DedicatedQDQPair": True,
    "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
}


@dataclass(frozen=True)
class InsertInt8:
    """Quantise an fp32 model: int8, zero points 0, weights per output channel.

    Whoever else reads a quantised tensor, a planner perhaps, reads the original.

    Attributes:
        nodes: Names of the nodes that are quantised, of `PRODUCTS`.
        ranges: Largest magnitude of each activation that they read.
    """

    nodes: Sequence[str]
    ranges: Mapping[str, float]
    name = "insert-int8"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model, its nodes sorted."""
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorData, TensorsData

        limits = {name: np.array(reach or 1.0, dtype=np.float32) for name, reach in self.ranges.items()}
        data = {name: TensorData(lowest=-limit, highest=limit) for name, limit in limits.items()}
        int8 = QuantType.QInt8.tensor_type
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(model),  # a copy, which the quantiser changes
            True,  # weights per channel
            False,  # all 8 bits
            int8,
            int8,
            TensorsData(CalibrationMethod.MinMax, data),
            list(self.nodes),
            [],
            list(PRODUCTS),
            _OPTIONS,
        )
        done = ir.serde.deserialize_model(quantizer.quantize_model())
        done.producer_name, done.producer_version = model.producer_name, model.producer_version
        _restore_others(done.graph, ir.serde.deserialize_model(model).graph, set(self.nodes))
        done.graph.sort()
        counts = {"nodes": len(self.nodes), "activations": len(self.ranges)}
        return ir.serde.serialize_model(done), Change(self.name, "nodes read pairs of int8", counts)


def _restore_others(graph: ir.Graph, source: ir.Graph, quantized: set[str]) -> None:
    """The quantiser redirects every reader of a tensor; those that are not quantised get the original back."""
    for node in [node for node in graph if node.op_type == "DequantizeLinear"]:
        others = [(user, position) for user, position in node.outputs[0].uses() if str(user.name) not in quantized]
        if not others:
            continue
        stored = node.inputs[0]
        assert stored is not None  # noqa: S101 - the standard requires it
        pair = stored.producer()
        original = pair.inputs[0] if pair is not None else _weight(graph, source, str(stored.name))
        for user, position in others:
            user.replace_input_with(position, original)


def _weight(graph: ir.Graph, source: ir.Graph, stored: str) -> ir.Value:
    name = stored.removesuffix("_quantized")
    if name not in graph.initializers:
        found = source.initializers[name]
        graph.register_initializer(
            ir.Value(name=name, shape=found.shape, type=found.type, const_value=found.const_value)
        )
    return graph.initializers[name]
