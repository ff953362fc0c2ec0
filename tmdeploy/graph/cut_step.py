"""One reduction step as a model of its own."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.utils

from tmdeploy.card.metadata import StepRecord
from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class CutStep:
    """Cut a step out by the names of its tensors. Any batch and any number of tokens can be fed to the piece.

    Attributes:
        step: Which.
        schedule: Name of the schedule's input; None where the file has none.
    """

    step: StepRecord
    schedule: str | None
    name = "cut-step"

    @property
    def outputs(self) -> list[str]:
        """Outputs of the piece."""
        step = self.step
        return [name for name in (step.map, step.index, step.x_out, step.size_out) if name]

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model, of a given one whose shapes were inferred.

        Raises:
            ValueError: The graph does not have these tensors; and whatever else onnx raises.
        """
        step = self.step
        inputs = list(dict.fromkeys(name for name in (step.signal, step.metric, step.x_in, step.size_in) if name))
        inputs.append("images")  # weights of methods without sizes take their batch size from it
        if self.schedule is not None:
            inputs.append(self.schedule)
        part = onnx.utils.Extractor(model).extract_model(inputs, self.outputs)
        known = {function.name for function in part.functions}
        part.functions.extend(function for function in model.functions if function.name not in known)
        for value in part.graph.input:
            if value.name == self.schedule:  # as long as there are steps, whatever is fed
                continue
            for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
                dimension.Clear()
                dimension.dim_param = f"{value.name}_{axis}"
        del part.graph.value_info[:]
        for value in part.graph.output:
            value.type.tensor_type.ClearField("shape")
        return part, Change(self.name, f"the step of block {step.block} by itself", {"nodes": len(part.graph.node)})
