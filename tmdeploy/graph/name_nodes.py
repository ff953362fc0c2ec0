"""Names for nodes: TensorRT reports kernels, errors and timings by them, and so does every list of nodes of ours."""

from __future__ import annotations

import onnx

from tmdeploy.graph.base import Change


class NameNodes:
    """Give every node a name of its own, that of its first output where it has none."""

    name = "name-nodes"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        seen: set[str] = set()
        named = 0
        for node in model.graph.node:
            if not node.name or node.name in seen:
                node.name = next(output for output in node.output if output)
                named += 1
            seen.add(node.name)
        return model, Change(self.name, "nodes got names of their own", {"nodes": named})
