"""Inputs without defaults, for runtimes that take an input with a default for a constant."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tmdeploy.graph.base import Change


@dataclass(frozen=True)
class RequireInput:
    """Take an input's default away, so that a value has to be fed.

    Attributes:
        input: Its name.
    """

    input: str
    name = "require-input"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        tensors = model.graph.initializer
        kept = [tensor for tensor in tensors if tensor.name != self.input]
        taken = len(tensors) - len(kept)
        del tensors[:]
        tensors.extend(kept)
        return model, Change(self.name, f"the input '{self.input}' has no default any more", {"defaults": taken})
