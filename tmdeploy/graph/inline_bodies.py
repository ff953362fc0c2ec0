"""Function bodies in place of the op set's nodes, for runtimes without model-local functions."""

from __future__ import annotations

import onnx
import onnx.inliner

from tmdeploy.graph.base import Change
from tmdeploy.ops import DOMAIN


class InlineBodies:
    """Replace every node of the domain by the file's own body of it: only standard ops remain."""

    name = "inline-bodies"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """Another model."""
        inlined = onnx.inliner.inline_local_functions(model)
        keep = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
        del inlined.opset_import[:]
        inlined.opset_import.extend(keep)
        replaced = sum(node.domain == DOMAIN for node in model.graph.node)
        return inlined, Change(self.name, "nodes became their function bodies", {"nodes": replaced})
