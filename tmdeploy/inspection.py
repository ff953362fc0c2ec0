"""What a model file says about itself. The JSON document has schema `tmdeploy.inspect/1`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tmdeploy.backends.onnxruntime.packages import oldest_runtime
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.facts import AnyConfig, ModelFacts, read_config
from tmdeploy.card.macs import model_macs
from tmdeploy.card.metadata import ArtifactMetadata, Assumption, Preprocessing
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.graph.onnx_file import read_onnx, shape_of
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

    schema_: str = Field(default="tmdeploy.inspect/1", alias="schema")
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
    metadata: ArtifactMetadata | None = None
    architecture: VitConfig | ModelFacts | None = None
    preprocessing: Preprocessing | None = None
    assumptions: tuple[Assumption, ...] = Field(default=(), description="what the weights do not show")
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    macs: int | None = None
    macs_unmerged: int | None = None
    macs_reduction: int | None = Field(default=None, description="arithmetic of planners and reduces, not in macs")


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
        metadata=metadata,
    )
    if metadata is None:
        return found
    recipe = Recipe.of(metadata)
    lowering = None
    if metadata.steps:
        library = ort_library()
        bodies = "function bodies" if library is None else f"native code ({library.path})"
        lowering = bodies if metadata.lowering == "custom" else "inlined standard ops"
    try:
        counted = _counted(read_config(metadata.architecture), recipe)
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
    from tmdeploy.lazy import require

    require("torch", purpose=f"reading the checkpoint {path}")
    from tmdeploy.models.checkpoint import load_checkpoint

    loaded = load_checkpoint(path, **options)
    recipe = loaded.recipe or Recipe(method="none")
    found = Inspection(
        path=str(path),
        kind="checkpoint",
        bytes=path.stat().st_size,
        sha256=loaded.sha256,
        preprocessing=loaded.preprocessing,
        assumptions=loaded.assumptions,
        notes=loaded.notes,
    )
    return found.model_copy(update=_counted(loaded.config, recipe))


def _counted(config: AnyConfig, recipe: Recipe) -> dict[str, object]:
    steps = recipe.steps(config.tokens, config.num_prefix)
    known = config if isinstance(config, VitConfig) else None
    merged = None if known is None else model_macs(known, steps, recipe.spec)
    after = {step.block: step.tokens_out for step in steps}
    rows, tokens = [], config.tokens
    for block in range(config.depth):
        left = after.get(block, tokens)
        macs = None if merged is None else merged.blocks[block]
        rows.append(BlockRow(block=block, tokens_in=tokens, tokens_out=left, macs=macs))
        tokens = left
    facts: dict[str, object] = {"architecture": config, "recipe": recipe, "blocks": tuple(rows)}
    if merged is None or known is None:
        return facts
    return {
        **facts,
        "macs": merged.total,
        "macs_unmerged": model_macs(known).total,
        "macs_reduction": merged.reduction,
    }


def _port(value: onnx.ValueInfoProto, *, optional: bool) -> Port:
    import onnx

    name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    shape = tuple("?" if side is None else side for side in shape_of(value))
    return Port(name=value.name, type=name, shape=shape, optional=optional)
