"""Inputs that become constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tmdeploy.graph.base import Change
from tmdeploy.graph.require_input import RequireInput


@dataclass(frozen=True, eq=False)
class FixInput:
    """Make an input the constant it defaults to, or another one.

    Attributes:
        input: Its name.
        value: The constant; None takes the default.
    """

    input: str
    value: NDArray[Any] | None = None
    name = "fix-input"

    def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
        """In place."""
        if self.value is not None:
            model, _ = RequireInput(self.input)(model)
            model.graph.initializer.append(numpy_helper.from_array(self.value, self.input))
        inputs = model.graph.input
        kept = [value for value in inputs if value.name != self.input]
        taken = len(inputs) - len(kept)
        del inputs[:]
        inputs.extend(kept)
        return model, Change(self.name, f"the input '{self.input}' became a constant", {"inputs": taken})
