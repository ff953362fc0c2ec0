"""No float64, for runtimes that have none."""

from __future__ import annotations

import onnx
from onnx import TensorProto, numpy_helper

from tmdeploy.graph.base import Change


class NarrowDoubles:
    """Turn float64 into float32, which is what TensorRT would do without a word."""

    name = "narrow-doubles"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        counts = {"tensors": 0, "casts": 0}
        for tensor in [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute)]:
            if tensor.data_type == TensorProto.DOUBLE:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
                counts["tensors"] += 1
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                    attribute.i = TensorProto.FLOAT
                    counts["casts"] += 1
        notes = ("TensorRT has no float64: planners accumulate in fp32",) if any(counts.values()) else ()
        return model, Change(self.name, "float64 became float32", counts, notes)
