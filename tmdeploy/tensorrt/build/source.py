"""Refusing early what TensorRT would refuse late or get wrong."""

from __future__ import annotations

from pathlib import Path

import onnx

from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError
from tmdeploy.graph.onnx_file import STANDARD, check_bodies, image_input, read_onnx


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
    check_bodies(model, path)
    _check_scatters(model, path)
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


def _check_scatters(model: onnx.ModelProto, path: Path) -> None:
    for node in (node for owner in (model.graph, *model.functions) for node in owner.node):
        reductions = (a.s.decode(errors="replace") for a in node.attribute if a.name == "reduction" and a.s)
        reduction = next(reductions, "none")
        if node.op_type in {"ScatterElements", "ScatterND"} and node.domain in STANDARD and reduction != "none":
            where = f"node '{node.name or node.output[0]}'"
            raise ArtifactError(
                f"{where} is a {node.op_type} with reduction '{reduction}', which TensorRT refuses or silently ignores",
                path=path,
                remedy="Export the model with tmdeploy export, which needs no scattered sums",
            )
