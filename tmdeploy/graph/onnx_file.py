"""Reading `.onnx` files, the one place where it is done: what comes out has been looked at.

Names are text, types are known, and every tensor has as many bytes as it declares, so that nobody allocates what a
broken file asks for; the metadata speaks of this graph.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, parse
from tmdeploy.errors import ArtifactError
from tmdeploy.ops import DOMAIN
from tmdeploy.system.boundary import library_call

if TYPE_CHECKING:
    import onnx

# It warns of what a file has wrong by logging; without a handler that goes to stderr.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())

Shape = tuple[int | str | None, ...]
STANDARD = {"", "ai.onnx"}  # the two ways to write the domain of the standard operators

NOT_ONNX = "is no ONNX file, or a truncated one"
AGAIN = "Export it again"
_CHANGED = "It was changed after the export: export it again"
# Bits of the types whose elements do not fill a byte.
_PACKED = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}


def read_onnx(
    path: Path, content: bytes | None = None, *, weights: bool = True
) -> tuple[onnx.ModelProto, ArtifactMetadata | None]:
    """Read a file and its metadata.

    Args:
        path: The file; its folder is where weights in other files are looked for.
        content: Serialised, instead of what is in it.
        weights: Read weights that lie in other files, too.

    Returns:
        The model, and its tmdeploy metadata; None for a foreign file.

    Raises:
        ArtifactError: Missing, empty, truncated or foreign; it declares what it does not have; or its metadata is of
            another graph.
    """
    import onnx

    check_there(path)
    with library_call(path, NOT_ONNX, remedy=AGAIN, told=lambda _: ""):
        model = onnx.load(str(path), load_external_data=False) if content is None else onnx.load_from_string(content)
        if not model.graph.node:
            raise ValueError("no nodes")
    with library_call(path, "is damaged", remedy=AGAIN):
        _check_names(model)
        _check_edges(model)
    _check_tensors(model, path)
    if weights:
        with library_call(
            path,
            "its weights lie in another file that cannot be read",
            remedy="Put that file beside it, under its old name",
        ):
            onnx.load_external_data_for_model(model, str(path.parent))
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None:
        return model, None
    metadata = parse(text, path=str(path))
    _check_metadata(model, metadata, path)
    return model, metadata


def check_there(path: Path) -> None:
    """Refuse what is no file, or an empty one.

    Raises:
        ArtifactError: So it is.
    """
    if not path.is_file():
        raise ArtifactError("no such file", path=path, remedy="Check the path")
    if path.stat().st_size == 0:
        raise ArtifactError("is empty", path=path, remedy=AGAIN)


def standard_opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 1 where the file does not say."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 1)


def check_bodies(model: onnx.ModelProto, path: Path) -> None:
    """Refuse nodes that no runtime can compute: of a domain that is not the standard's, and without a function.

    Raises:
        ArtifactError: There is one.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.domain not in STANDARD and (node.domain, node.op_type) not in functions:
            ours = node.domain == DOMAIN
            raise ArtifactError(
                f"node '{node.name or node.output[0]}' is of the op {node.domain}::{node.op_type}, for which the file "
                "has no function body",
                path=path,
                remedy="Export it again: the file lost its functions" if ours else "Replace it by standard ONNX ops",
            )


def image_input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    """The one input that takes images, [batch, ...] with three more sides.

    Raises:
        ArtifactError: There is none, or another one beside it.
    """
    defaults = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in defaults]
    shapes = [value.type.tensor_type.shape.dim for value in inputs]
    if len(inputs) != 1 or len(shapes[0]) != 4:
        text = ", ".join(f"{value.name} ({len(shape)}-D)" for value, shape in zip(inputs, shapes, strict=True))
        raise ArtifactError(
            f"takes {text or 'nothing'}, not one batch of images",
            path=path,
            remedy="Give a model with a single 4-dimensional image input",
        )
    found: onnx.ValueInfoProto = inputs[0]
    return found


def check_ports(
    metadata: ArtifactMetadata, path: Path, *, images: Shape, pixels: bool, outputs: Shape, schedule: Shape | None
) -> None:
    """Compare what a file says about its input and output with what they are.

    Args:
        metadata: What it says.
        path: The file.
        images: Shape of the image input, four sides; only whole numbers are compared.
        pixels: Whether that is of uint8.
        outputs: Shape of the first output.
        schedule: Shape of the input that has a default and the schedule's name; None: there is none.

    Raises:
        ArtifactError: They differ.
    """
    config = metadata.card.architecture
    (height, width), channels = config.image_size, config.in_channels
    said = (None, height, width, channels) if metadata.preprocessing_in_graph else (None, channels, height, width)
    differ = any(isinstance(side, int) and told not in {None, side} for told, side in zip(said, images, strict=True))
    if differ or pixels != metadata.preprocessing_in_graph:
        kind = "pixels" if metadata.preprocessing_in_graph else "normalised images"
        raise ArtifactError(
            f"its metadata speaks of {kind} of {height} x {width}, but its input is {_text(images)}",
            path=path,
            remedy=_CHANGED,
        )
    classes = config.num_classes
    if classes and len(outputs) == 2 and isinstance(outputs[1], int) and outputs[1] != classes:
        raise ArtifactError(
            f"its metadata speaks of {classes} classes, but its output is {_text(outputs)}", path=path, remedy=_CHANGED
        )
    if metadata.schedule_input is None:
        return
    steps = len(metadata.card.reduction.layers)
    if schedule is None or len(schedule) != 1 or (isinstance(schedule[0], int) and schedule[0] != steps):
        found = "there is none" if schedule is None else f"it is {_text(schedule)}"
        raise ArtifactError(
            f"its metadata speaks of an input '{metadata.schedule_input}' of {steps} amounts; {found}",
            path=path,
            remedy=_CHANGED,
        )


def _check_metadata(model: onnx.ModelProto, metadata: ArtifactMetadata, path: Path) -> None:
    import onnx

    defaults = {tensor.name for tensor in model.graph.initializer}
    free = [value for value in model.graph.input if value.name not in defaults]
    images = shape_of(free[0]) if len(free) == 1 else ()
    if len(images) == 4 and model.graph.output:  # else whoever wants to run it says what is wrong
        given = {value.name: shape_of(value) for value in model.graph.input if value.name in defaults}
        check_ports(
            metadata,
            path,
            images=images,
            pixels=free[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8,
            outputs=shape_of(model.graph.output[0]),
            schedule=given.get(str(metadata.schedule_input)),
        )
    known = {name for node in model.graph.node for name in node.output}
    known |= {value.name for value in model.graph.input} | defaults
    for step in metadata.steps:
        for name in step.tensors:
            if name not in known:
                raise ArtifactError(
                    f"its metadata names a tensor '{name}' that its graph does not have", path=path, remedy=_CHANGED
                )


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """Sides of a graph's input or output: numbers, names, or None."""
    return tuple(
        side.dim_value if side.HasField("dim_value") else side.dim_param or None
        for side in value.type.tensor_type.shape.dim
    )


def _check_names(model: onnx.ModelProto) -> None:
    """Look at every text and every type once. Raises ValueError."""
    import onnx

    texts: list[str] = []
    elements, kinds = set(onnx.TensorProto.DataType.values()), set(onnx.AttributeProto.AttributeType.values())
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        element = value.type.tensor_type.elem_type
        if element not in elements:
            raise ValueError(f"'{value.name}' is of the unknown type {element}")
        texts += (value.name, *(side.dim_param for side in value.type.tensor_type.shape.dim))
    for entry in model.metadata_props:
        texts += (entry.key, entry.value)
    texts += (entry.domain for entry in model.opset_import)
    texts += (tensor.name for tensor in model.graph.initializer)
    for function in model.functions:
        texts += (function.name, function.domain, *function.input, *function.output)
    for node in _nodes(model):
        texts += (node.name, node.op_type, node.domain, *node.input, *node.output)
        if not any(node.output):
            raise ValueError(f"node '{node.name or node.op_type}' computes nothing")
        for attribute in node.attribute:
            texts.append(attribute.name)
            if attribute.type not in kinds:
                raise ValueError(f"attribute '{attribute.name}' is of the unknown type {attribute.type}")
    try:
        "".join(texts).encode()  # protobuf hands out what is no UTF-8 as bytes, or as lone surrogates
    except (TypeError, UnicodeError):
        raise ValueError("a name in it is no UTF-8") from None


def _check_edges(model: onnx.ModelProto) -> None:
    """Every input of a node comes from somewhere. Raises ValueError."""
    graph = model.graph
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    known |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                raise ValueError(f"node '{node.name or node.op_type}' reads '{name}', which nothing computes")
    for value in graph.output:
        if value.name not in known:
            raise ValueError(f"nothing computes its output '{value.name}'")


def _check_tensors(model: onnx.ModelProto, path: Path) -> None:
    """Refuse tensors that declare another size than they have."""
    for tensor in _tensors(model):
        with library_call(path, "is damaged", remedy=AGAIN):
            problem = _tensor_problem(tensor)
        if problem is not None:
            raise ArtifactError(f"tensor '{tensor.name}' {problem}", path=path, remedy=AGAIN)


def _tensor_problem(tensor: onnx.TensorProto) -> str | None:
    import onnx

    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        return f"is of the unknown type {tensor.data_type}"
    if any(side < 0 for side in tensor.dims):
        return f"has a negative side: {_text(tensor.dims)}"
    count = math.prod(tensor.dims)
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        given = {entry.key: entry.value for entry in tensor.external_data}.get("length")
        size = None if given is None else int(given)
    elif tensor.HasField("raw_data"):
        size = len(tensor.raw_data)
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        entries = len(getattr(tensor, field))
        per_element = 2 if kind.startswith("COMPLEX") else 1
        wanted = -(-count * _PACKED[kind] // 8) if kind in _PACKED else count * per_element
        return None if entries == wanted else f"declares {_text(tensor.dims)}, but holds {entries} numbers"
    bits = _PACKED.get(kind) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    wanted = -(-count * bits // 8)
    if size not in {None, wanted}:
        return f"declares {_text(tensor.dims)} of {kind.lower()}, {wanted} bytes, but holds {size}"
    return None


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from graph.initializer


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Of the graph, of functions, and of graphs inside nodes."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                waiting += [graph.node for graph in (attribute.g, *attribute.graphs) if graph.node]


def _text(shape: Sequence[object]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"
