"""What a model file says about itself. The JSON document has schema `tmdeploy.inspect/2`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_serializer

from tmdeploy.backends.onnxruntime.packages import oldest_runtime
from tmdeploy.card.card import ModelCard
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.graph.onnx_file import read_onnx, shape_of
from tmdeploy.lazy import require
from tmdeploy.native.library import ort_library
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET
from tmdeploy.report.schemas.document import Document, Result
from tmdeploy.system.files import sha256

if TYPE_CHECKING:
    import onnx


class Port(Document):
    """An input or output of the graph."""

    name: str
    type: str
    shape: tuple[int | str, ...]
    optional: bool = False


class BlockRow(Document):
    """Tokens and MACs of one block at the default schedule."""

    block: int
    tokens_in: int
    tokens_out: int
    macs: int | None = Field(default=None, description="none: of a module of the user's own")


class Inspection(Result):
    """Everything `tmdeploy inspect` shows."""

    schema_: str = Field(default="tmdeploy.inspect/2", alias="schema")
    path: str
    kind: str = Field(description="onnx or checkpoint")
    bytes: int
    sha256: str
    ir_version: int | None = None
    opsets: dict[str, int] = Field(default={})
    oldest_onnxruntime: str | None = Field(default=None, description="first version of those supported that reads it")
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    ops: dict[str, int] = Field(default={}, description="nodes of the main graph, `domain::op` for custom ones")
    functions: tuple[str, ...] = ()
    lowering: str | None = Field(default=None, description="what would run the reduction steps")
    card: ModelCard | None = Field(default=None, description="none: a foreign file")
    metadata: ArtifactMetadata | None = Field(default=None, description="of an .onnx; its card is left to `card`")
    notes: tuple[str, ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    macs: int | None = None
    macs_unmerged: int | None = None
    macs_reduction: int | None = Field(default=None, description="arithmetic of planners and reduces, not in macs")

    @field_serializer("metadata")
    def _of_the_file(self, metadata: ArtifactMetadata | None) -> dict[str, object] | None:
        return None if metadata is None else metadata.model_dump(exclude={"card"})


def inspect_onnx(path: Path) -> Inspection:
    """Read an ONNX file without running it.

    Raises:
        ArtifactError: Missing, empty, truncated or foreign.
    """
    model, metadata = read_onnx(path, weights=False)
    defaults = {tensor.name for tensor in model.graph.initializer}
    ops = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    opset = opsets.get("ai.onnx", 0)
    found = Inspection(
        path=str(path),
        kind="onnx",
        bytes=path.stat().st_size,
        sha256=sha256(path),
        ir_version=model.ir_version,
        opsets=opsets,
        oldest_onnxruntime=oldest_runtime(opset) if MIN_OPSET <= opset <= MAX_OPSET else None,
        inputs=tuple(_port(value, optional=value.name in defaults) for value in model.graph.input),
        outputs=tuple(_port(value, optional=False) for value in model.graph.output),
        ops=dict(ops.most_common()),
        functions=tuple(f"{function.domain}::{function.name}" for function in model.functions),
        card=None if metadata is None else metadata.card,
        metadata=metadata,
    )
    if metadata is None:
        return found
    lowering = None
    if metadata.steps:
        library = ort_library()
        bodies = "function bodies" if library is None else f"native code ({library.path})"
        lowering = bodies if metadata.lowering == "custom" else "inlined standard ops"
    try:
        counted = _counted(metadata.card)
    except UsageError as error:  # the method is none that is known here
        raise ArtifactError(
            f"its metadata cannot be followed ({error.message})",
            path=path,
            remedy="Install the package that brings the method, or, if the file is damaged, export it again",
        ) from error
    return found.model_copy(update={"lowering": lowering, **counted})


def inspect_checkpoint(path: Path, **options: Any) -> Inspection:
    """Read a checkpoint, with the options of `models.checkpoint.load_checkpoint`: architecture, recipe, token counts.

    Raises:
        EnvironmentMissing: torch is not installed.
        CheckpointError: It cannot be read.
    """
    require("torch", purpose=f"reading the checkpoint {path}")
    from tmdeploy.models.checkpoint import load_checkpoint

    loaded = load_checkpoint(path, **options)
    assert loaded.card.provenance is not None  # noqa: S101 - it was read from a file
    found = Inspection(
        path=str(path),
        kind="checkpoint",
        bytes=path.stat().st_size,
        sha256=loaded.card.provenance.source_sha256,
        card=loaded.card,
        notes=loaded.notes,
    )
    return found.model_copy(update=_counted(loaded.card))


def _counted(card: ModelCard) -> dict[str, object]:
    macs, after = card.macs(), {step.block: step.tokens_out for step in card.steps()}
    rows, tokens = [], card.architecture.tokens
    for block in range(card.architecture.depth):
        left = after.get(block, tokens)
        count = None if macs is None else macs.blocks[block]
        rows.append(BlockRow(block=block, tokens_in=tokens, tokens_out=left, macs=count))
        tokens = left
    counted: dict[str, object] = {"blocks": tuple(rows)}
    if macs is not None:
        counted |= {"macs": macs.total, "macs_unmerged": card.unmerged_macs, "macs_reduction": macs.reduction}
    return counted


def _port(value: onnx.ValueInfoProto, *, optional: bool) -> Port:
    import onnx

    name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    shape = tuple("?" if side is None else side for side in shape_of(value))
    return Port(name=value.name, type=name, shape=shape, optional=optional)
