"""Put the last part of preprocessing into the graph: uint8 [batch, H, W, 3] pixels in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class FoldPreprocessing:
    """Replace the input `images` by uint8 pixels at the model's image size, scaled and normalised in the graph.

    Resizing and cropping stay outside: their interpolation differs between runtimes, and accuracy hangs on it.

    Attributes:
        preprocessing: Mean and standard deviation are taken from it.
    """

    preprocessing: Preprocessing
    name = "fold-preprocessing"

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Change]:
        """In place."""
        graph = model.graph
        old = graph.inputs[0]
        assert old.shape is not None  # noqa: S101 - inputs have one
        batch, channels, height, width = old.shape
        pixels = ir.Value(
            name="images", shape=ir.Shape([batch, height, width, channels]), type=ir.TensorType(ir.DataType.UINT8)
        )
        scale = 1.0 / (255.0 * np.array(self.preprocessing.std))
        shift = -np.array(self.preprocessing.mean) / np.array(self.preprocessing.std)
        factors = []
        for name, values in (("pixel_scale", scale), ("pixel_shift", shift)):
            tensor = ir.tensor(values.astype(np.float32).reshape(1, 3, 1, 1), name=name)
            factors.append(
                ir.Value(name=name, shape=ir.Shape([1, 3, 1, 1]), type=ir.TensorType(tensor.dtype), const_value=tensor)
            )
            graph.register_initializer(factors[-1])
        cast = ir.node("Cast", [pixels], attributes={"to": ir.DataType.FLOAT}, name="pixels_float")
        planar = ir.node("Transpose", [cast.outputs[0]], attributes={"perm": [0, 3, 1, 2]}, name="pixels_planar")
        scaled = ir.node("Mul", [planar.outputs[0], factors[0]], name="pixels_scaled")
        normal = ir.node("Add", [scaled.outputs[0], factors[1]], name="pixels_normalised")
        for node in (cast, planar, scaled, normal):
            node.outputs[0].name, node.outputs[0].type = str(node.name), ir.TensorType(ir.DataType.FLOAT)
            node.outputs[0].shape = ir.Shape([batch, channels, height, width])
        cast.outputs[0].shape = ir.Shape([batch, height, width, channels])
        for consumer, index in list(old.uses()):
            consumer.replace_input_with(index, normal.outputs[0])
        old.name = "images_normalised"
        graph.inputs[0] = pixels
        graph.insert_before(graph[0], [cast, planar, scaled, normal])
        return model, Change(self.name, "the input takes pixels, normalised in the graph", {"nodes": 4})
