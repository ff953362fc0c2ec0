"""Which nodes of a session run where, as ONNX Runtime tells it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tmdeploy.backends.onnxruntime.session import CPU
from tmdeploy.ops import DOMAIN

RECORD = "session.record_ep_graph_assignment_info"  # since ONNX Runtime 1.24; older ones ignore it

# What ONNX Runtime computes shapes with. It puts such nodes on the CPU on purpose where their inputs are there anyway.
_OF_SHAPES = frozenset(
    (
        *("Shape", "Size", "Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Cast", "Identity", "Reshape"),
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "Range", "ReduceProd", "ConstantOfShape"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Where", "Split"),
    )
)
_SHORT = {CPU: "the CPU", "CUDAExecutionProvider": "CUDA", "TensorrtExecutionProvider": "TensorRT"}


@dataclass(frozen=True)
class Placement:
    """Nodes of a session's graph, counted after partitioning.

    Attributes:
        ops: Number of nodes of each op by provider; ops of other domains as `domain::Op`.
    """

    ops: dict[str, Counter[str]]

    @classmethod
    def of(cls, session: Any) -> Placement | None:
        """None where ONNX Runtime (before 1.24) or the session (made without `RECORD`) does not tell."""
        tell = getattr(session, "get_provider_graph_assignment_info", None)
        if tell is None:
            return None
        ops: dict[str, Counter[str]] = {}
        for part in tell():
            there = ops.setdefault(part.ep_name, Counter())
            for node in part.get_nodes():
                name = f"{node.domain}::{node.op_type}" if node.domain not in {"", "ai.onnx"} else node.op_type
                there[name] += 1
        return cls(ops)

    def on(self, provider: str) -> int:
        """Nodes that run there."""
        return sum(self.ops.get(provider, Counter()).values())

    @property
    def strays(self) -> Counter[str]:
        """Nodes on the CPU that do more than compute shapes: the model's data is copied there and back for them."""
        return Counter({op: count for op, count in self.ops.get(CPU, Counter()).items() if op not in _OF_SHAPES})

    def passed_over(self, provider: str) -> bool:
        """Whether there was something to compute, and it got none of it."""
        return provider not in self.ops and bool(self.strays or self.ops.keys() - {CPU})

    @property
    def steps_on_cpu(self) -> Counter[str]:
        """Nodes of the op set among them."""
        return Counter({op: count for op, count in self.strays.items() if op.startswith(f"{DOMAIN}::")})

    def __str__(self) -> str:
        """Such as `431 nodes on CUDA, 2 on the CPU (2 Concat)`."""
        counts = []
        for provider in sorted(self.ops, key=lambda name: (name == CPU, -self.on(name))):
            text = f"{self.on(provider)} on {_SHORT.get(provider, provider)}"
            counts.append(f"{text} ({listed(self.ops[provider])})" if provider == CPU else text)
        return f"nodes: {', '.join(counts)}" if counts else "no nodes"


def listed(ops: Counter[str]) -> str:
    """Such as `4 TopK, 2 Concat`."""
    return ", ".join(f"{count} {op}" for op, count in ops.most_common())
