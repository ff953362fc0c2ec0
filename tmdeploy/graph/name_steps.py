"""Give the reduction steps' tensors names that people and tools can find, and say which they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from tmdeploy.card.metadata import StepRecord
from tmdeploy.card.schedule import Step
from tmdeploy.graph.base import Change
from tmdeploy.methods.spec import MethodSpec, Weight
from tmdeploy.ops import DOMAIN

PLANNERS = ("TokenMatch", "TokenSelect")


@dataclass(frozen=True)
class StepsNamed(Change):
    """What `NameSteps` did, and which tensors are whose.

    Attributes:
        records: One per step.
    """

    records: tuple[StepRecord, ...] = ()


@dataclass(frozen=True)
class NameSteps:
    """Rename each step's tensors to `block3/map`, `block3/x_in`, ... and record them.

    The model has one planner node a step, in block order.

    Attributes:
        spec: The method.
        steps: Blocks and counts at the default schedule.
        num_prefix: Prefix tokens.
    """

    spec: MethodSpec
    steps: Sequence[Step]
    num_prefix: int
    name = "name-steps"

    def __call__(self, model: ir.Model) -> tuple[ir.Model, StepsNamed]:
        """In place."""
        planners = [node for node in model.graph if node.domain == DOMAIN and node.op_type in PLANNERS]
        assert len(planners) == len(self.steps)  # noqa: S101 - one call of a planner a step
        records = tuple(self._record(node, step) for node, step in zip(planners, self.steps, strict=True))
        counts = {"steps": len(records)}
        return model, StepsNamed(self.name, "tensors got the names of their steps", counts, records=records)

    def _record(self, node: ir.Node, step: Step) -> StepRecord:
        reduces = [user for user, _ in node.outputs[0].uses() if user.op_type == "TokenReduce"]
        on_tokens = reduces[0]
        # one reduce does both where tokens are weighed by size; else sizes have their own, in every step that has sizes
        on_sizes = on_tokens if self.spec.weight is Weight.SIZE else reduces[-1]
        assert not self.spec.tracks_size or len(reduces) == 2 - (self.spec.weight is Weight.SIZE)  # noqa: S101
        names: dict[str, ir.Value | None] = {
            "map": node.outputs[0],
            "index": node.outputs[1],
            "signal": node.inputs[0],
            "metric": node.inputs[2] if node.op_type == "TokenSelect" and len(node.inputs) > 2 else None,
            "x_in": on_tokens.inputs[0],
            "x_out": on_tokens.outputs[0],
            "size_in": on_sizes.inputs[3] if self.spec.tracks_size else None,
            "size_out": on_sizes.outputs[1] if self.spec.tracks_size else None,
        }
        taken = {key: _name(value, f"block{step.block}/{key}") for key, value in names.items() if value is not None}
        _name(node.outputs[2], f"block{step.block}/sim")
        node.name = f"block{step.block}/{node.op_type}"
        for number, reduce in enumerate(reduces):
            reduce.name = f"block{step.block}/TokenReduce" + (f"_{number}" if number else "")
        return StepRecord(
            block=step.block,
            op="TokenMatch" if node.op_type == "TokenMatch" else "TokenSelect",
            num_prefix=self.num_prefix,
            tokens_in=step.tokens_in,
            tokens_out=step.tokens_out,
            **taken,  # keys are those of the record
        )


def _name(value: ir.Value, name: str) -> str:
    # a tensor two steps share (the size between them) keeps its first name
    if value.name is None or not value.name.startswith("block"):
        value.name = name
    return str(value.name)
