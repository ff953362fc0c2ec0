"""Extra graph outputs that a user asks for: the plans, the final sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from tmdeploy.card.metadata import StepRecord
from tmdeploy.errors import UsageError
from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class ExtraOutputs:
    """Make tensors of the steps graph outputs.

    Attributes:
        records: The steps, named.
        outputs: `plan` adds every step's map and index; `size` adds the sizes after the last step, as `size`.
    """

    records: Sequence[StepRecord]
    outputs: Collection[str]
    name = "extra-outputs"

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Change]:
        """In place.

        Raises:
            UsageError: `size` of a method that keeps none, or either of a model that reduces nothing.
        """
        graph, before = model.graph, len(model.graph.outputs)
        if not self.records and {"plan", "size"} & set(self.outputs):
            raise UsageError("the model has no reduction step, so no plan or size to put out")
        values = {value.name: value for node in graph for value in node.outputs}
        if "plan" in self.outputs:
            for record in self.records:
                graph.outputs.extend((values[record.map], values[record.index]))
        if "size" in self.outputs:
            last = self.records[-1].size_out
            if last is None:
                raise UsageError("the method keeps no sizes", remedy="Leave out --extra-output size")
            same = ir.node("Identity", [values[last]], name="size")
            out = same.outputs[0]
            out.name, out.shape, out.type = "size", values[last].shape, values[last].type
            graph.append(same)
            graph.outputs.append(out)
        return model, Change(self.name, "tensors of steps are outputs", {"outputs": len(graph.outputs) - before})
