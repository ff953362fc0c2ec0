"""Reading the ONNX file that becomes an engine, and refusing early what TensorRT would refuse late or get wrong."""

from __future__ import annotations

from pathlib import Path

import onnx

from tmdeploy.errors import ArtifactError
from tmdeploy.metadata import METADATA_KEY, ArtifactMetadata, parse
from tmdeploy.ops import DOMAIN

_STANDARD = {"", "ai.onnx"}


def load_source(path: Path, content: bytes | None = None) -> tuple[onnx.ModelProto, ArtifactMetadata | None]:
    """Read and check.

    Args:
        path: The file.
        content: Serialised, instead of what is in it.

    Returns:
        The model, and its tmdeploy metadata; None for a foreign file.

    Raises:
        ArtifactError: Missing, empty, truncated, foreign, or with nodes that no engine can be built from.
    """
    if not path.is_file():
        raise ArtifactError("no such file", path=path, remedy="Check the path")
    if path.stat().st_size == 0:
        raise ArtifactError("is empty", path=path, remedy="Export it again")
    try:
        model = onnx.load(str(path), load_external_data=False) if content is None else onnx.load_from_string(content)
        if not model.graph.node:
            raise ValueError("no nodes")
    except Exception as error:
        raise ArtifactError("is no ONNX file, or a truncated one", path=path, remedy="Export it again") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"its weights lie in another file that cannot be read ({first})",
            path=path,
            remedy="Put that file beside it, under its old name",
        ) from error
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    metadata = None if text is None else parse(text, path=str(path))
    _check_nodes(model, path)
    if metadata is not None:
        _check_steps(model, metadata, path)
    return model, metadata


def image_input(model: onnx.ModelProto, metadata: ArtifactMetadata | None, path: Path) -> onnx.ValueInfoProto:
    """The one input that takes images.

    Raises:
        ArtifactError: There is none, another one beside it, or its height or width is open.
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
    open_sides = [axis for axis, side in enumerate(shapes[0]) if axis > 0 and not side.HasField("dim_value")]
    if open_sides:
        raise ArtifactError(
            f"leaves dimension {open_sides[0]} of its images open; an engine takes one image size, that of its "
            "position embeddings",
            path=path,
            remedy="Export it with --image-size, and build one engine for each size",
        )
    found: onnx.ValueInfoProto = inputs[0]
    return found


def _check_nodes(model: onnx.ModelProto, path: Path) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in body):
        where = f"node '{node.name or node.output[0]}'"
        reduction = next((a.s.decode() for a in node.attribute if a.name == "reduction" and a.s), "none")
        if node.op_type in {"ScatterElements", "ScatterND"} and node.domain in _STANDARD and reduction != "none":
            raise ArtifactError(
                f"{where} is a {node.op_type} with reduction '{reduction}', which TensorRT refuses or silently ignores",
                path=path,
                remedy="Export the model with tmdeploy export, which needs no scattered sums",
            )
        if node.domain not in _STANDARD and (node.domain, node.op_type) not in functions:
            known = node.domain == DOMAIN
            raise ArtifactError(
                f"{where} is of the op {node.domain}::{node.op_type}, for which the file has no function body",
                path=path,
                remedy="Export it again: the file lost its functions" if known else "Replace it by standard ONNX ops",
            )


def _check_steps(model: onnx.ModelProto, metadata: ArtifactMetadata, path: Path) -> None:
    known = {name for node in model.graph.node for name in node.output}
    known |= {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    for step in metadata.steps:
        for name in (step.map, step.index, step.signal, step.x_in, step.x_out):
            if name not in known:
                raise ArtifactError(
                    f"its metadata names a tensor '{name}' that its graph does not have",
                    path=path,
                    remedy="It was changed after the export: export it again",
                )
