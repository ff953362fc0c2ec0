"""Twins of an exported file: the same graph without its reduction, or with a reduction that costs nothing.

The *unmerged* twin is what merging has to beat, on the same backend with the same kernels; the *free-merge* twin, in
which each reduction is a slice of the first M tokens, is the most that merging could ever gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, StepRecord, dump
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import ArtifactError
from tmdeploy.graph.base import Change

Kind = Literal["unmerged", "free-merge"]


@dataclass(frozen=True)
class MakeTwin:
    """Build a twin: the same inputs (but no runtime schedule) and outputs, without reduction steps.

    Attributes:
        kind: Which twin. `free-merge` keeps the token counts, and drops the log-size bias along with the sizes.
        metadata: The model's metadata, as exported, in either lowering.
        amounts: Schedule whose token counts a `free-merge` keeps; None takes the file's default.
    """

    kind: Kind
    metadata: ArtifactMetadata
    amounts: Sequence[int] | None = None
    name = "make-twin"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model; the given one is not changed.

        Raises:
            ArtifactError: A recorded tensor is not in the graph, or the file has a fixed schedule and so no unmerged
                twin.
        """
        metadata = self.metadata
        if self.kind == "unmerged" and metadata.steps and metadata.schedule_input is None:
            raise ArtifactError(
                "has its token counts fixed in the graph, so it has no unmerged twin",
                path=metadata.card.source_name,
                remedy="Export it with --runtime-r, or compare with a file exported with --method none",
            )
        if self.amounts is not None:
            metadata = _rescheduled(metadata, self.amounts)
        twin = ir.serde.deserialize_model(model)
        values = {str(value.name): value for node in twin.graph for value in node.outputs}
        for step in metadata.steps:
            missing = [name for name in (step.x_in, step.x_out) if name not in values]
            if missing:
                raise ArtifactError(
                    f"has no tensor '{missing[0]}', though its metadata names it", path=metadata.card.source_name
                )
            before, after = values[step.x_in], values[step.x_out]
            replacement = before if self.kind == "unmerged" else _first_tokens(before, step)
            _replace_uses(after, replacement)
            if step.size_out is not None:
                _bypass_bias(values[step.size_out])
        _fix_schedule(twin, metadata, self.kind)
        passes.RemoveUnusedNodesPass()(twin)
        passes.RemoveUnusedFunctionsPass()(twin)  # type: ignore[no-untyped-call]
        _forget_shapes(twin)
        bare = metadata.model_copy(
            update={
                "card": metadata.card.replace(recipe=Recipe(method="none")),
                "schedule_input": None,
                "steps": (),
            }
        )
        twin.metadata_props[METADATA_KEY] = dump(bare)
        change = Change(self.name, f"steps removed: the {self.kind} twin", {"steps": len(metadata.steps)})
        return ir.serde.serialize_model(twin), change


def _rescheduled(metadata: ArtifactMetadata, amounts: Sequence[int]) -> ArtifactMetadata:
    counts = metadata.card.steps(amounts)
    steps = tuple(
        step.model_copy(update={"tokens_in": count.tokens_in, "tokens_out": count.tokens_out})
        for step, count in zip(metadata.steps, counts, strict=True)
    )
    recipe = metadata.card.reduction.model_copy(update={"amounts": tuple(amounts)})
    return metadata.model_copy(update={"card": metadata.card.replace(recipe=recipe), "steps": steps})


def _first_tokens(tokens: ir.Value, step: StepRecord) -> ir.Value:
    """Slice [B, N, D] to its first M tokens, right after its producer."""
    producer = tokens.producer()
    assert producer is not None  # noqa: S101 - x_in is computed
    graph = producer.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    bounds = []
    for name, number in (("from", 0), ("to", step.tokens_out), ("axis", 1)):
        key = f"free_{step.block}_{name}"
        tensor = ir.tensor(np.array([number], dtype=np.int64), name=key)
        value = ir.Value(name=key, shape=ir.Shape([1]), type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
        bounds.append(value)
    node = ir.node("Slice", [tokens, *bounds], name=f"free_{step.block}")
    node.outputs[0].name = f"free_{step.block}"
    node.outputs[0].type = tokens.type
    graph.insert_after(producer, [node])
    return node.outputs[0]


def _replace_uses(old: ir.Value, new: ir.Value) -> None:
    for node, index in list(old.uses()):
        node.replace_input_with(index, new)


def _bypass_bias(size: ir.Value) -> None:
    """Remove `logits + log(size)`: follow the sizes through Log to the Add, and let the logits through."""
    for log, _ in list(size.uses()):
        if log.op_type != "Log":
            continue
        reached = [log.outputs[0]]
        while reached:
            value = reached.pop()
            for node, index in list(value.uses()):
                if node.op_type == "Add":
                    logits = node.inputs[1 - index]
                    assert logits is not None  # noqa: S101 - Add has two inputs
                    _replace_uses(node.outputs[0], logits)
                else:  # Unsqueeze, Cast, Reshape
                    reached.extend(node.outputs)


def _fix_schedule(model: ir.Model, metadata: ArtifactMetadata, kind: Kind) -> None:
    """Turn the runtime schedule into a constant: the counts of reshapes hang on it."""
    if metadata.schedule_input is None:
        return
    recipe = metadata.card.reduction
    for value in list(model.graph.inputs):
        if value.name == metadata.schedule_input:
            model.graph.inputs.remove(value)
            # not more: ONNX Runtime's int64 Max takes 2**31 for less than 1 (1.31)
            nothing = 0 if metadata.schedule_input == "r" else 2**31 - 1
            amounts = [nothing] * len(recipe.layers) if kind == "unmerged" else recipe.amounts
            value.const_value = ir.tensor(np.array(amounts, dtype=np.int64), name=value.name)


def _forget_shapes(model: ir.Model) -> None:
    """Token counts recorded at export are no longer true."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
