"""The same pairs in float8: ONNX Runtime's quantiser takes scales of float8 from standard deviations, which clips ViTs.

Where int8 has 127 levels on either side, E4M3FN reaches 448; so the largest magnitude of a tensor goes there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from tmdeploy.graph.base import Change

_FLOAT8 = ir.DataType.FLOAT8E4M3FN
_INT8_MAX, _FLOAT8_MAX = 127.0, 448.0
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ToFloat8:
    """Turn every pair of an int8 model into float8 E4M3FN.

    Attributes:
        source: The fp32 model, for the weights: rounding twice would cost accuracy.
    """

    source: onnx.ModelProto
    name = "to-float8"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model, of one from `InsertInt8`."""
        converted = ir.serde.deserialize_model(model)
        weights = ir.serde.deserialize_graph(self.source.graph).initializers
        done: set[str] = set()
        pairs = 0
        for node in converted.graph:
            if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
                continue
            given, scale, zero = node.inputs
            assert given is not None and scale is not None and zero is not None  # noqa: S101, PT018 - InsertInt8 made them
            if given.const_value is not None:
                weight = _array(weights[str(given.name).removesuffix("_quantized")])
                axis = node.attributes["axis"].as_int()
                others = tuple(side for side in range(weight.ndim) if side != axis % weight.ndim)
                largest = np.abs(weight).max(axis=others, keepdims=True)
                steps = np.maximum(largest / np.float32(_FLOAT8_MAX), _SMALLEST).astype(np.float32)
                _set(given, (weight / steps).astype(_FLOAT8.numpy()))
                _set(scale, steps.reshape(-1))
            elif str(scale.name) not in done:
                _set(scale, (_array(scale) * np.float32(_INT8_MAX / _FLOAT8_MAX)).astype(np.float32))
            done.add(str(scale.name))
            _set(zero, np.zeros(zero.shape.numpy() if zero.shape is not None else (), dtype=_FLOAT8.numpy()))
            if node.op_type == "QuantizeLinear":
                node.outputs[0].type = ir.TensorType(_FLOAT8)
            pairs += node.op_type == "DequantizeLinear"
        return ir.serde.serialize_model(converted), Change(self.name, "int8 became float8", {"pairs": pairs})


def _array(value: ir.Value) -> NDArray[np.float32]:
    assert value.const_value is not None  # noqa: S101 - scales and weights are constants
    return value.const_value.numpy().astype(np.float32)


def _set(value: ir.Value, numbers: NDArray[np.generic]) -> None:
    value.const_value = ir.tensor(numbers, name=value.name)
    value.type = ir.TensorType(value.const_value.dtype)
