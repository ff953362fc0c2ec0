"""Shapes that are known when a graph is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class FixShapes:
    """Fix leading dimensions of inputs, such as the batch, so that TensorRT computes every shape while it builds.

    Attributes:
        shapes: The dimensions, by input.
    """

    shapes: Mapping[str, Sequence[int]]
    name = "fix-shapes"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        fixed = 0
        for value in model.graph.input:
            for side, size in zip(value.type.tensor_type.shape.dim, self.shapes.get(value.name, ()), strict=False):
                fixed += not side.HasField("dim_value")
                side.dim_value = size  # one of a oneof: the symbol goes
        return model, Change(self.name, "dimensions of inputs became numbers", {"dimensions": fixed})
