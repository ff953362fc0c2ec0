"""The plugins: one for each op and each set of inputs, because a Python plugin has a fixed number of them.

Their names differ from the ops' on purpose: the parser falls back to a function body of the same name without a word,
and a C++ plugin library may be loaded in the same process.
A plugin has one attribute, a list of integers, whatever the op has: texts travel as positions in a list, floats as
their bits. TensorRT 10.13's Python layer cannot read a single number with a recent NumPy, and hands several attributes
over in whatever order the parser found them.
"""

from __future__ import annotations

from dataclasses import dataclass

NAMESPACE = "tmdeploy_aot"
VERSION = "1"
SETTINGS = "settings"

_DATA = ("FP32", "FP16", "BF16")
_PLAN = ("map", "index", "sim")


@dataclass(frozen=True)
class PluginOp:
    """One ahead-of-time plugin.

    Attributes:
        name: Plugin name, and type of the nodes that become it.
        op: Whose kernels it runs: `match`, `select`, `reduce`.
        inputs: Names, in order; `data` inputs have the model's type.
        settings: What the integers of its attribute are, in order.
        outputs: Names, in order.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def plugin_id(self) -> str:
        """As `tensorrt.plugin` has it."""
        return f"{NAMESPACE}::{self.name}"


_PLANNER = ("num_prefix", "metric_eps_bits", "deterministic")
_SELECT = (*_PLANNER, "by_index")
PLUGIN_OPS = (
    PluginOp("TokenMatchAot", "match", ("metric", "slots"), (*_PLANNER, "unsorted"), _PLAN),
    PluginOp("TokenSelectDropAot", "select", ("score", "slots"), _SELECT, (*_PLAN, "count")),
    PluginOp("TokenSelectFuseAot", "select", ("score", "slots", "kept"), _SELECT, (*_PLAN, "count")),
    PluginOp("TokenSelectNearestAot", "select", ("score", "slots", "metric"), _SELECT, (*_PLAN, "count")),
    PluginOp("TokenReduceAot", "reduce", ("x", "map", "index"), ("mode",), ("y", "wsum")),
    PluginOp("TokenReduceWeightedAot", "reduce", ("x", "map", "index", "weight"), ("mode",), ("y", "wsum")),
)
BY_NAME = {plugin.name: plugin for plugin in PLUGIN_OPS}

# TensorRT's names of the types a tensor may have.
TYPES = {
    "metric": _DATA, "score": _DATA, "x": _DATA, "y": _DATA,
    "slots": ("INT64",), "kept": ("INT64",),
    "map": ("INT32",), "index": ("INT32",), "count": ("INT32",),
    "sim": ("FP32",), "weight": ("FP32",), "wsum": ("FP32",),
}  # fmt: skip


def type_combinations(plugin: PluginOp) -> list[str]:
    """Types of all inputs and outputs that the kernels take together, as `AutoTuneCombination` wants them.

    y has x's type; score and metric are independent of each other.
    """
    combinations: list[dict[str, str]] = [{}]
    for name in plugin.inputs:
        combinations = [{**known, name: kind} for known in combinations for kind in TYPES[name]]
    return [
        ", ".join([*known.values(), *(known["x"] if name == "y" else TYPES[name][0] for name in plugin.outputs)])
        for known in combinations
    ]
