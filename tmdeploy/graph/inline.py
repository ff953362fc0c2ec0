"""Function bodies in place of the op set's nodes, for runtimes without model-local functions."""

from __future__ import annotations

import onnx
import onnx.inliner

from tmdeploy.ops import DOMAIN


def inline_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every node of the domain by its body: only standard ops remain."""
    inlined = onnx.inliner.inline_local_functions(model)
    keep = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(keep)
    return inlined
