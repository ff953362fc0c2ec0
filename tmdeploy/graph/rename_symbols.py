"""Give symbolic dimensions names that people understand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class RenameSymbols:
    """Rename symbolic dimensions everywhere, such as torch's `s77` to `batch`.

    Attributes:
        symbols: New names by old ones.
    """

    symbols: Mapping[str, str]
    name = "rename-symbols"

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Change]:
        """In place."""
        renamed = 0
        for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
            shape = value.shape
            if shape is None:
                continue
            for axis, dimension in enumerate(shape):
                old = getattr(dimension, "value", dimension)
                if isinstance(old, str) and old in self.symbols and not shape.is_static(axis):
                    fresh = shape.copy(frozen=False)
                    fresh[axis] = self.symbols[old]
                    value.shape = shape = fresh
                    renamed += 1
        return model, Change(self.name, "symbols got names that say what they count", {"dimensions": renamed})
