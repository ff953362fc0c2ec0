"""What TensorRT's parser and builder do with a plugin node, step by step, through NVIDIA's Python layer."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.helper
import torch
from torch import Tensor

from tests.tensorrt.plugin.bindings import (
    DimensionExpr,
    Dims,
    DimsExprs,
    DynamicPluginTensorDesc,
    ExprBuilder,
    PluginTensorDesc,
)
from tests.tensorrt.plugin.entry_library import EntryLibrary
from tmdeploy.graph.mark_aot_plugins import MarkAotPlugins
from tmdeploy.ops import DOMAIN

TORCH_TYPES = {
    "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32, "INT64": torch.int64,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TORCH_TYPES.items()}

# A dimension is a number, or the name and largest extent of a dynamic one.
Dimension = int | tuple[str, int]


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    """One node of the domain as the exporter writes it, then marked."""
    made = onnx.helper.make_node(op, inputs, outputs, name="step", domain=DOMAIN, **attributes)
    model = onnx.helper.make_model(onnx.helper.make_graph([made], "g", [], []))
    return MarkAotPlugins()(model)[0].graph.node[0]


@dataclass
class BuiltNode:
    """What an engine keeps of a plugin node."""

    kernel: str
    ptx: str
    launch: Any
    extras: dict[int, Any]
    output_shapes: list[list[DimensionExpr]]
    output_types: list[torch.dtype]

    def run(self, library: EntryLibrary, inputs: list[Tensor], dimensions: dict[str, int]) -> list[Tensor]:
        """Launch with real tensors: inputs, extra arguments, outputs, in this order."""
        outputs = []
        for shape, dtype in zip(self.output_shapes, self.output_types, strict=True):
            extents = [extent.evaluate(dimensions) for extent in shape]
            filler = float("nan") if dtype.is_floating_point else -99
            outputs.append(torch.full(extents, filler, dtype=dtype))
        values = {name: getattr(self.launch, name).expr.evaluate(dimensions) for name in vars(self.launch)}
        assert (values["grid_y"], values["grid_z"], values["block_y"], values["block_z"]) == (1, 1, 1, 1)
        extras = [self.extras[i].expr.evaluate(dimensions) for i in range(len(self.extras))]
        library.launch(
            self.kernel, values["grid_x"], values["block_x"], values["shared_mem"], [*inputs, *extras, *outputs]
        )
        return outputs


class _Extras(dict[int, Any]):
    nbSymExprs = -1


def _descriptions(trt: Any, shapes: list[list[Dimension]], types: list[Any]) -> list[DynamicPluginTensorDesc]:
    made = []
    for shape, kind in zip(shapes, types, strict=True):
        dims = Dims(-1 if isinstance(extent, tuple) else extent for extent in shape)
        most = Dims(extent[1] if isinstance(extent, tuple) else extent for extent in shape)
        least = Dims(1 if isinstance(extent, tuple) else extent for extent in shape)
        made.append(
            DynamicPluginTensorDesc(PluginTensorDesc(dims, kind, trt.TensorFormat.LINEAR, 1.0), least, most, most)
        )
    return made


def build_node(
    bindings: SimpleNamespace, marked: onnx.NodeProto, shapes: list[list[Dimension]], dtypes: list[torch.dtype]
) -> BuiltNode:
    """Create the plugin as the parser does, configure it and take its kernel as the builder does."""
    trt = bindings.trt
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in marked.attribute}
    creator = trt.get_plugin_registry().get_creator(
        marked.op_type, attributes["plugin_version"].decode(), attributes["plugin_namespace"].decode()
    )
    assert creator is not None
    assert attributes["aot"] == 1
    # INTS attributes arrive as int32, in the order of the creator's fields, and missing ones not at all
    fields = [
        trt.PluginField(known.name, np.array(attributes[known.name], np.int32), trt.PluginFieldType.INT32)
        for known in creator.field_names
        if known.name in attributes
    ]
    plugin = creator.create_plugin(
        marked.op_type,
        attributes["plugin_namespace"].decode(),
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    assert len(marked.input) == len(shapes)
    assert len(marked.output) == plugin.get_num_outputs()
    types = [trt.DataType[NAMES[dtype]] for dtype in dtypes]
    output_types = plugin.get_output_data_types(types, [len(shape) for shape in shapes])
    builder = ExprBuilder()
    dims = [DimsExprs([DimensionExpr(d[0] if isinstance(d, tuple) else d) for d in shape]) for shape in shapes]
    output_shapes = plugin.get_output_shapes(dims, [], builder)

    inputs = _descriptions(trt, shapes, types)
    # the builder knows bounds of the outputs too; nothing here depends on them
    unknown: list[list[Dimension]] = [[("?", 1)] * len(shape) for shape in output_shapes]
    outputs = _descriptions(trt, unknown, output_types)
    combinations = plugin.get_supported_format_combinations(inputs + outputs, len(inputs))
    width = len(inputs) + len(outputs)
    offered = [[desc.type for desc in combinations[i : i + width]] for i in range(0, len(combinations), width)]
    assert [*types, *output_types] in offered
    assert all(desc.format is trt.TensorFormat.LINEAR for desc in combinations)
    plugin.configure_plugin(inputs, outputs)
    assert plugin.get_valid_tactics() == []
    plugin.set_tactic(0)
    launch, extras = SimpleNamespace(), _Extras()
    plugin.get_launch_params(dims, inputs + outputs, len(inputs), launch, extras, builder)
    assert extras.nbSymExprs == len(extras)
    assert all(extra.dtype is trt.PluginArgDataType.INT32 for extra in extras.values())
    name, ptx = plugin.clone().get_kernel([d.desc for d in inputs], [d.desc for d in outputs])
    torch_types = [TORCH_TYPES[kind.name] for kind in output_types]
    return BuiltNode(name, ptx.decode(), launch, dict(extras), [list(shape) for shape in output_shapes], torch_types)
