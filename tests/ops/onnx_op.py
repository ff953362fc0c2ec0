"""Run one op's function body in ONNX Runtime, as a one-node model."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from tmdeploy.ops.bodies import function_body
from tmdeploy.ops.spec import DOMAIN, OPS, VERSION

_TYPES = {"int32": TensorProto.INT32, "int64": TensorProto.INT64}  # any other is a float


@functools.lru_cache(maxsize=256)
def _session(
    op: str,
    given: tuple[str, ...],
    attributes: tuple[tuple[str, object], ...],
    opset: int,
    half: bool,
    counting: bool,
):
    spec = OPS[op]
    names = [name if name in given else "" for name in spec.input_names]
    while names[-1] == "":
        names.pop()
    types = {tensor.name: _TYPES.get(tensor.type, TensorProto.FLOAT) for tensor in (*spec.inputs, *spec.outputs)}
    if half:
        types.update(metric=TensorProto.FLOAT16, x=TensorProto.FLOAT16, y=TensorProto.FLOAT16)
    node = helper.make_node(op, names, spec.output_names, domain=DOMAIN, **dict(attributes))
    graph = helper.make_graph(
        [node],
        "op",
        [helper.make_tensor_value_info(name, types[name], None) for name in names if name],
        [helper.make_tensor_value_info(name, types[name], None) for name in spec.output_names],
    )
    model = helper.make_model(
        graph,
        functions=[function_body(op, dict(attributes), opset, counting=counting)],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_op(
    op: str, feeds: dict[str, np.ndarray], opset: int = 20, *, counting: bool = False, **attributes: object
) -> list[np.ndarray]:
    half = any(value.dtype == np.float16 for value in feeds.values())
    session = _session(op, tuple(sorted(feeds)), tuple(sorted(attributes.items())), opset, half, counting)
    return session.run(None, feeds)
