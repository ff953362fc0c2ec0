"""The plugins: one for each op and each set of inputs, because a Python plugin has a fixed number of them.

Their names differ from the ops' on purpose: the parser falls back to a function body of the same name without a word,
and a C++ plugin library may be loaded in the same process.
A plugin has one attribute, a list of integers, whatever the op has: texts travel by their numbers, floats as their
bits. TensorRT 10.13's Python layer cannot read a single number with a recent NumPy, and hands several attributes
over in whatever order the parser found them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from tmdeploy.ops.spec import MATCH, REDUCE, SELECT, Attributes, OpSpec, SelectAttributes, Tensor

NAMESPACE = "tmdeploy_aot"
VERSION = "1"  # of everything that TensorRT's Python layer registers
SETTINGS = "settings"

# TensorRT's names of the types a tensor may have; any other is a floating type, the model's.
_TYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
_DATA = ("FP32", "FP16", "BF16")


@dataclass(frozen=True)
class PluginOp:
    """One ahead-of-time plugin.

    Attributes:
        name: Plugin name, and type of the nodes that become it.
        spec: The op it computes.
        tensors: Its inputs, in order.
    """

    name: str
    spec: OpSpec[Any]
    tensors: tuple[Tensor, ...]

    @property
    def op(self) -> str:
        """Whose kernels it runs: `match`, `select`, `reduce`."""
        return self.spec.torch_name.removeprefix("token_")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return tuple(tensor.name for tensor in self.tensors)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return self.spec.output_names

    @property
    def settings(self) -> tuple[str, ...]:
        """What the integers of its attribute are, in order: the op's attributes."""
        return tuple(self.spec.attributes.declared())

    @property
    def plugin_id(self) -> str:
        """As `tensorrt.plugin` has it."""
        return f"{NAMESPACE}::{self.name}"


def _selection(leftover: str) -> PluginOp:
    given = SelectAttributes(leftover=leftover).values()
    return PluginOp(f"TokenSelect{leftover.capitalize()}Aot", SELECT, SELECT.inputs_for(given))


PLUGIN_OPS = (
    PluginOp("TokenMatchAot", MATCH, MATCH.inputs),
    *map(_selection, SelectAttributes.choices("leftover")),
    PluginOp("TokenReduceAot", REDUCE, tuple(tensor for tensor in REDUCE.inputs if not tensor.optional)),
    PluginOp("TokenReduceWeightedAot", REDUCE, REDUCE.inputs),
)
BY_NAME = {plugin.name: plugin for plugin in PLUGIN_OPS}
BY_INPUTS = {(plugin.spec.name, plugin.inputs): plugin for plugin in PLUGIN_OPS}


def settings_of(given: Attributes) -> list[int]:
    """The attributes as a plugin has them."""
    return [
        struct.unpack("<i", struct.pack("<f", code))[0] if isinstance(code, float) else code
        for code in given.codes().values()
    ]


def type_combinations(plugin: PluginOp) -> list[str]:
    """Types of all inputs and outputs that the kernels take together, as `AutoTuneCombination` wants them.

    y has x's type; score and metric are independent of each other.
    """
    combinations: list[dict[str, str]] = [{}]
    for tensor in plugin.tensors:
        kinds = (_TYPES[tensor.type],) if tensor.type in _TYPES else _DATA
        combinations = [{**known, tensor.name: kind} for known in combinations for kind in kinds]
    floating = {tensor.type: tensor.name for tensor in plugin.tensors if tensor.type not in _TYPES}
    return [
        ", ".join(
            [
                *known.values(),
                *(_TYPES.get(t.type) or known[floating[t.type]] for t in plugin.spec.outputs),
            ]
        )
        for known in combinations
    ]
