"""Refusing early what TensorRT would refuse late or get wrong."""

from __future__ import annotations

from pathlib import Path

import onnx

from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError
from tmdeploy.graph.onnx_file import STANDARD, image_input, read_onnx
from tmdeploy.ops import DOMAIN


def load_source(path: Path, content: bytes | None = None) -> tuple[onnx.ModelProto, ArtifactMetadata | None]:
    """Read the ONNX file that becomes an engine, and check its nodes.

    Args:
        path: The file.
        content: Serialised, instead of what is in it.

    Returns:
        The model, and its tmdeploy metadata; None for a foreign file.

    Raises:
        ArtifactError: Missing, empty, truncated, foreign, or with nodes that no engine can be built from.
    """
    model, metadata = read_onnx(path, content)
    _check_nodes(model, path)
    return model, metadata


def fixed_images(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    """The one input that takes images, all of one size.

    Raises:
        ArtifactError: There is none, another one beside it, or its height or width is open.
    """
    images = image_input(model, path)
    for axis, side in enumerate(images.type.tensor_type.shape.dim):
        if axis > 0 and not side.HasField("dim_value"):
            raise ArtifactError(
                f"leaves dimension {axis} of its images open; an engine takes one image size, that of its "
                "position embeddings",
                path=path,
                remedy="Export it with --image-size, and build one engine for each size",
            )
    return images


def _check_nodes(model: onnx.ModelProto, path: Path) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in body):
        where = f"node '{node.name or node.output[0]}'"
        reductions = (a.s.decode(errors="replace") for a in node.attribute if a.name == "reduction" and a.s)
        reduction = next(reductions, "none")
        if node.op_type in {"ScatterElements", "ScatterND"} and node.domain in STANDARD and reduction != "none":
            raise ArtifactError(
                f"{where} is a {node.op_type} with reduction '{reduction}', which TensorRT refuses or silently ignores",
                path=path,
                remedy="Export the model with tmdeploy export, which needs no scattered sums",
            )
        if node.domain not in STANDARD and (node.domain, node.op_type) not in functions:
            known = node.domain == DOMAIN
            raise ArtifactError(
                f"{where} is of the op {node.domain}::{node.op_type}, for which the file has no function body",
                path=path,
                remedy="Export it again: the file lost its functions" if known else "Replace it by standard ONNX ops",
            )
