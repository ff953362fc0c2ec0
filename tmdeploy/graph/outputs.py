"""Extra graph outputs: the plans, the final sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from tmdeploy.card.metadata import StepRecord
from tmdeploy.errors import UsageError


def add_step_outputs(model: ir.Model, records: Sequence[StepRecord], outputs: Collection[str]) -> None:
    """Make tensors of the steps graph outputs.

    Args:
        model: With named steps; changed in place.
        records: The steps.
        outputs: `plan` adds every step's map and index; `size` adds the sizes after the last step, as `size`.

    Raises:
        UsageError: `size` of a method that keeps none, or either of a model that reduces nothing.
    """
    if not records:
        if {"plan", "size"} & set(outputs):
            raise UsageError("the model has no reduction step, so no plan or size to put out")
        return
    values = {value.name: value for node in model.graph for value in node.outputs}
    if "plan" in outputs:
        for record in records:
            model.graph.outputs.extend((values[record.map], values[record.index]))
    if "size" in outputs:
        last = records[-1].size_out
        if last is None:
            raise UsageError("the method keeps no sizes", remedy="Leave out --extra-output size")
        same = ir.node("Identity", [values[last]], name="size")
        out = same.outputs[0]
        out.name, out.shape, out.type = "size", values[last].shape, values[last].type
        model.graph.append(same)
        model.graph.outputs.append(out)
