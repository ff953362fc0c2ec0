"""Nodes that no exporter writes, in a session with the native library: refused or run, and none ends the process.

    python malformed_nodes.py LIBRARY

A process of its own: a crash shows as its exit code, and the last line printed is the case.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

_RNG = np.random.default_rng(0)
_VALUES = {
    "metric": _RNG.standard_normal((2, 9, 4)).astype(np.float32),
    "slots": np.arange(6),
    "score": _RNG.random((2, 9)).astype(np.float32),
    "kept": np.arange(5),
    "x": _RNG.standard_normal((2, 9, 4)).astype(np.float32),
    "map": np.tile(np.minimum(np.arange(9), 5), (2, 1)).astype(np.int32),
    "index": np.tile(np.arange(6), (2, 1)).astype(np.int32),
    "weight": np.ones((2, 9), np.float32),
}
_OPS = {
    "TokenMatch": (("metric", "slots"), ("map", "index", "sim")),
    "TokenSelect": (("score", "slots", "metric", "kept"), ("map", "index", "sim", "count")),
    "TokenReduce": (("x", "map", "index", "weight"), ("y", "wsum")),
}
_TYPES = {"y": TensorProto.FLOAT, "wsum": TensorProto.FLOAT, "sim": TensorProto.FLOAT}
_ATTRIBUTES = (
    {"num_prefix": -1},
    {"num_prefix": 2**62},
    {"num_prefix": -(2**63)},
    {"num_prefix": "x"},
    {"num_prefix": [1, 2]},
    {"metric_eps": float("nan")},
    {"order": 3},
    {"order": "x" * 500},
    {"mode": 5},
    {"mode": ""},
    {"leftover": ["a", "b"]},
    {"leftover": "nearest"},
    {"leftover": "fuse"},
    {"unknown": 3},
)


class Case(NamedTuple):
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, object]
    changed: dict[str, np.ndarray]


def cases() -> Iterator[Case]:
    for op, (inputs, outputs) in _OPS.items():
        for mask in itertools.product([True, False], repeat=len(inputs)):
            names = tuple(name if given else "" for name, given in zip(inputs, mask, strict=True))
            for length in {len(names), max((at + 1 for at, name in enumerate(names) if name), default=0)}:
                yield Case(op, names[:length], outputs, {}, {})
        yield Case(op, (*inputs, "extra", "extra"), outputs, {}, {"extra": np.ones(3, np.float32)})
        for count in range(1, len(outputs)):
            yield Case(op, inputs, outputs[:count], {}, {})
            yield Case(op, inputs, ("", *outputs[1:]), {}, {})
        yield Case(op, inputs, (*outputs, "more"), {}, {})
        for attributes in _ATTRIBUTES:
            yield Case(op, inputs, outputs, attributes, {})
        for name in inputs:
            value = _VALUES[name]
            for rank in (0, 1, 2, 3, 4, 6):
                yield Case(op, inputs, outputs, {}, {name: np.resize(value, [2] * rank)})
            for kind in (np.float16, np.float64, np.int32, np.int64, np.bool_):
                yield Case(op, inputs, outputs, {}, {name: value.astype(kind)})
            for axis in range(value.ndim):
                yield Case(op, inputs, outputs, {}, {name: np.delete(value, np.s_[:], axis)})
        for shared in (0, 1, 2):  # empty throughout: no images, no tokens, no features
            empty = {name: np.delete(_VALUES[name], np.s_[:], shared) for name in inputs if _VALUES[name].ndim > shared}
            yield Case(op, inputs, outputs, {}, empty)


def run(case: Case, library: str, optimise: bool) -> None:
    values = {name: case.changed.get(name, _VALUES.get(name)) for name in dict.fromkeys(case.inputs) if name}
    node = helper.make_node(case.op, case.inputs, case.outputs, domain="tmdeploy", **case.attributes)
    graph = helper.make_graph(
        [node],
        "op",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), [f"{name}{axis}" for axis in range(value.ndim)]
            )
            for name, value in values.items()
        ],
        [
            helper.make_tensor_value_info(name, _TYPES.get(name, TensorProto.INT32), None)
            for name in case.outputs
            if name
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("tmdeploy", 1)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.register_custom_ops_library(library)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, values)


def main() -> None:
    ran = refused = 0
    for case, optimise in itertools.product(cases(), (True, False)):
        print("case", case.op, case.inputs, case.outputs, case.attributes, list(case.changed), flush=True)
        try:
            run(case, sys.argv[1], optimise)
            ran += 1
        except Exception:  # refused, in whatever words
            refused += 1
    print("onnxruntime", onnxruntime.__version__, "ran", ran, "refused", refused)


if __name__ == "__main__":
    main()
