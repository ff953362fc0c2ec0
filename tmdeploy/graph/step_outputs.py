"""Every step's tensors as outputs, for a trace."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class StepOutputs:
    """Make every tensor that the metadata names a graph output.

    Attributes:
        metadata: The file's metadata.
    """

    metadata: ArtifactMetadata
    name = "step-outputs"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        outputs = {value.name for value in model.graph.output}
        before = len(outputs)
        tokens = TensorProto.FLOAT16 if self.metadata.precision == "fp16" else TensorProto.FLOAT
        for step in self.metadata.steps:
            types = {str(name): tokens for name in (step.metric, step.x_in, step.x_out)}
            # one tensor may be two of them; planners decide on fp32
            types |= {step.map: TensorProto.INT32, step.index: TensorProto.INT32, step.signal: TensorProto.FLOAT}
            for name in step.tensors:
                if name not in outputs:
                    element = types.get(name, TensorProto.FLOAT)
                    model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
                    outputs.add(name)
        return model, Change(self.name, "tensors of steps are outputs", {"outputs": len(outputs) - before})
