"""What crashes old versions of ONNX Runtime, refused before they see it. Newer ones say by themselves what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmdeploy.errors import ArtifactError

if TYPE_CHECKING:
    import onnx

# 1.20 to 1.26 were tried and crash, 1.31 does not.
_SOUND = (1, 31)


def refuse_what_crashes(runtime: Any, source: Path | bytes, path: Path) -> None:
    """Look at the calls of functions: one with fewer outputs than the function has ends the process.

    Args:
        runtime: The package.
        source: A file, or a serialised model.
        path: Path for messages.

    Raises:
        ArtifactError: There is such a call.
    """
    if _version(runtime) >= _SOUND:
        return
    try:
        model = read_proto(source)
    except Exception:  # what it is instead, ONNX Runtime says
        return
    made = {(function.domain, function.name): len(function.output) for function in model.functions}
    for node in (node for owner in (model.graph, *model.functions) for node in owner.node):
        count = made.get((node.domain, node.op_type), 0)
        if len(node.output) < count:
            raise ArtifactError(
                f"its node '{node.name or node.op_type}' takes {len(node.output)} of the {count} outputs of "
                f"{node.op_type}, on which ONNX Runtime {runtime.__version__} crashes",
                path=path,
                remedy="Give the node all outputs, or install a newer ONNX Runtime: pip install --upgrade onnxruntime",
            )


def read_proto(source: Path | bytes) -> onnx.ModelProto:
    """A model without tensors that are in files of their own."""
    import onnx

    return onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source, load_external_data=False)


def _version(runtime: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in str(runtime.__version__).split(".")[:2] if part.isdigit())
