"""Run one op in OpenVINO, read from a one-node ONNX model without a function body."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from onnx import TensorProto, helper
from torch import Tensor

from tmdeploy.ops.spec import DOMAIN, OPS, VERSION

_ONNX = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
}


class Ops:
    """The extension in a core of its own; every failure is OpenVINO's RuntimeError."""

    def __init__(self, library: Path) -> None:
        self.core = ov.Core()
        self.core.add_extension(str(library))
        self._read = functools.lru_cache(maxsize=512)(self._read_model)

    def __call__(self, op: str, feeds: dict[str, Tensor], **attributes: object) -> tuple[Tensor, ...]:
        """evaluate() on tensors of the given types, without a plugin that would convert them."""
        given = tuple((name, value.dtype) for name, value in feeds.items())
        model = self._read(op, given, tuple(sorted(attributes.items())))
        inputs = [_tensor(feeds[entry.any_name]) for entry in model.inputs]
        outputs = [ov.Tensor(entry.element_type, ov.Shape([0] * len(entry.partial_shape))) for entry in model.outputs]
        if not model.evaluate(outputs, inputs):
            raise RuntimeError("not evaluated")
        return tuple(map(_torch, outputs))

    def model(self, op: str, given: dict[str, torch.dtype], **attributes: object) -> ov.Model:
        return self._read(op, tuple(given.items()), tuple(sorted(attributes.items())))

    def _read_model(
        self, op: str, given: tuple[tuple[str, torch.dtype], ...], attributes: tuple[tuple[str, object], ...]
    ) -> ov.Model:
        return self.core.read_model(one_node(op, dict(given), **dict(attributes)))


def one_node(op: str, given: dict[str, torch.dtype], **attributes: object) -> bytes:
    spec = OPS[op]
    ranks = {tensor.name: len(tensor.dims) for tensor in spec.inputs}
    names = [name if name in given else "" for name in spec.input_names]
    while names[-1] == "":
        names.pop()
    types = dict.fromkeys(("map", "index", "count"), TensorProto.INT32) | dict.fromkeys(
        ("sim", "wsum"), TensorProto.FLOAT
    )
    types["y"] = _ONNX[given.get("x", torch.float32)]
    graph = helper.make_graph(
        [helper.make_node(op, names, spec.output_names, domain=DOMAIN, **attributes)],
        "op",
        [
            helper.make_tensor_value_info(name, _ONNX[dtype], [f"{name}_{axis}" for axis in range(ranks[name])])
            for name, dtype in given.items()
        ],
        [helper.make_tensor_value_info(name, types[name], None) for name in spec.output_names],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _tensor(value: Tensor) -> ov.Tensor:
    value = value.contiguous()
    if value.dtype is torch.bfloat16:
        made = ov.Tensor(ov.Type.bf16, ov.Shape(list(value.shape)))
        made.data.view(np.int16)[...] = value.view(torch.int16).numpy()
        return made
    return ov.Tensor(value.numpy().copy())


def _torch(value: ov.Tensor) -> Tensor:
    if value.element_type == ov.Type.bf16:
        return torch.from_numpy(value.data.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(value.data.copy())
