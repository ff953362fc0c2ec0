"""Layers of an engine, in one form whether the builder's log or the engine inspector listed them.

The ONNX nodes in a layer show what it does. Nodes of a reduction step are known by their names
(`block3/TokenMatch/...`), the model's own by what they read (`roles.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmdeploy.errors import ArtifactError
from tmdeploy.system.files import write_text

Part = Literal["plan", "reduce", "sizes", "schedule"]
SUFFIX = ".layers.json"
# Of the model's kinds, a layer has the first that one of its nodes has: a product decides over what is fused to it.
KINDS = ("attention", "mlp", "embedding", "head", "linear", "metric", "layernorm", "activation")
STEP_KINDS = ("step", "schedule")
_STEP = re.compile(r"^block(\d+)/(TokenMatch|TokenSelect|TokenReduce)")
_SIZES = re.compile(r"^block(\d+)/(?:size_|TokenReduce/(?:wsum|weight|source_weight))")
_SCHEDULE = re.compile(r"^(?:step_(\d+)_|r_at_least|keep_at_least)")
_HOST = {"shape_call", "signal", "wait"}  # arithmetic on shapes, streams that wait for each other: no launches
_PRODUCTS = {"gemm", "correlation", "runtime_fusion"}  # the last: a product with what surrounds it
_QUANTIZED = {"int8", "fp8"}
_SHAPES = {"shape_call", "ShapeHostToDevice"}
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# The two TensorRTs, their logs and their inspectors spell the types differently.
_TYPES = {
    "fp32": "float", "fp16": "half", "bf16": "bfloat16", "fp8": "fp8", "int8": "int8", "int4": "int4", "fp4": "fp4",
    "int32": "int32", "int64": "int64", "uint8": "uint8", "bool": "bool", "float": "float", "half": "half",
    "bfloat16": "bfloat16",
}  # fmt: skip


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Operand(_Frozen):
    """A tensor of a layer: its type in the sidecar's terms (`float`, `half`) and its shape; -1 is an open dimension."""

    type: str = ""
    shape: tuple[int, ...] = ()


class Layer(_Frozen):
    """One layer, which is mostly one kernel.

    Attributes:
        name: TensorRT's name.
        type: `gemm`, `kgen` (generated), `runtime_fusion`, `PluginV3`, ...; empty if only names are known.
        tactic: The kernel; empty if TensorRT does not say.
        nodes: Names of the ONNX nodes in it.
        inputs: What it reads, without constants.
        outputs: What it writes.
        kind: `step` (of a reduction step alone), `schedule` (token counts), `shapes`, one of `KINDS`, or `other`.
        blocks: Reduction steps that have nodes in it, by block.
        parts: Which parts of those steps.
    """

    name: str
    type: str = ""
    tactic: str = ""
    nodes: tuple[str, ...] = ()
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    kind: str = "other"
    blocks: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()

    @property
    def step_nodes(self) -> tuple[str, ...]:
        """Its nodes that belong to a reduction step."""
        return tuple(node for node in self.nodes if _STEP.match(node))

    @property
    def fused_attention(self) -> bool:
        """Whether it holds softmax and both products of attention."""
        return "_mha_" in self.name

    @property
    def quantized(self) -> bool:
        """Whether it has a matrix product or convolution of int8 or fp8."""
        read = {operand.type for operand in self.inputs}
        return (self.type in _PRODUCTS or self.fused_attention) and not _QUANTIZED.isdisjoint(read)

    @property
    def launches(self) -> bool:
        """Whether it runs on the GPU."""
        return self.type not in _HOST

    @property
    def types(self) -> str:
        """Its precision: `half`, or `half > float` where inputs and outputs differ."""
        sides = ["/".join(dict.fromkeys(o.type for o in side if o.type)) for side in (self.inputs, self.outputs)]
        given = [side for side in sides if side]
        return " > ".join(dict.fromkeys(given))


class IoTensor(_Frozen):
    """How the engine wants an input or output.

    Attributes:
        name: As in the sidecar.
        location: `device`, or `host` for what is read on the host.
        formats: Memory layout, one per profile.
        ranges: Shapes (min, opt, max), one triple per profile; empty for an output.
    """

    name: str
    location: str
    formats: tuple[str, ...] = ()
    ranges: tuple[tuple[tuple[int, ...], ...], ...] = ()


class Listing(_Frozen):
    """Layers and their source.

    Attributes:
        source: `build log`, or `engine inspector`.
        profile: The profile that they belong to, with its shapes; None for all profiles together.
        layers: In execution order.
    """

    source: Literal["build log", "engine inspector"]
    profile: int | None = None
    layers: tuple[Layer, ...]


class LayerFile(_Frozen):
    """`model.plan.layers.json`: the layers by the build log, for machines that cannot load the engine."""

    schema_: str = Field(default="tmdeploy.engine-layers/1", alias="schema")
    engine_sha256: str
    listings: tuple[Listing, ...] = Field(
        description="one a profile; one of all, where the log does not tell them apart"
    )
    io: tuple[IoTensor, ...] = ()
    roles: dict[str, str] = Field(default={}, description="of the model's nodes: which part of it they are")


def classified(layer: Layer, roles: Mapping[str, str], step_blocks: Sequence[int]) -> Layer:
    """The same layer with kind, blocks and parts.

    Args:
        layer: As listed by TensorRT.
        roles: From `roles.node_roles`; if empty, node names decide.
        step_blocks: Block of every reduction step, in order.
    """
    blocks: dict[int, None] = {}
    parts: dict[Part, None] = {}
    step_only = bool(layer.nodes)
    for node in layer.nodes:
        part, block = step_part(node, step_blocks)
        if block is not None:
            blocks[block] = None
        if part is None:
            step_only = False
        else:
            parts[part] = None
    if layer.type in _SHAPES:
        kind = "shapes"
    elif step_only:
        kind = "schedule" if set(parts) == {"schedule"} else "step"
    else:
        role = roles.get if roles else role_by_name
        own = {role(node) for node in layer.nodes if step_part(node, step_blocks)[0] is None}
        kind = next((name for name in KINDS if name in own), "other")
        if "_mha_" in layer.name:
            kind = "attention"
    return layer.model_copy(update={"kind": kind, "blocks": tuple(sorted(blocks)), "parts": tuple(parts)})


def step_part(node: str, step_blocks: Sequence[int]) -> tuple[Part | None, int | None]:
    """Part of a reduction step that an ONNX node is, and the block of the step; None, None for the model's own."""
    sizes = _SIZES.match(node)
    if sizes:
        return "sizes", int(sizes[1])
    step = _STEP.match(node)
    if step:
        return ("reduce" if step[2] == "TokenReduce" else "plan"), int(step[1])
    schedule = _SCHEDULE.match(node)
    if not schedule:
        return None, None
    number = None if schedule[1] is None else int(schedule[1])
    return "schedule", step_blocks[number] if number is not None and number < len(step_blocks) else None


def role_by_name(node: str) -> str | None:
    """A node's role by its name alone, for engines whose graph is not available."""
    lower = node.lower()
    for role, words in (
        ("attention", ("softmax", "/attn/", ".attn.")),
        ("mlp", ("/mlp/", ".mlp.")),
        ("layernorm", ("layer_norm", "layernorm", "/norm")),
        ("embedding", ("conv", "patch_embed")),
        ("linear", ("matmul", "gemm", "linear")),
        ("activation", ("gelu", "erf", "relu", "silu")),
    ):
        if any(word in lower for word in words):
            return role
    return None


def layers_path(engine: Path) -> Path:
    """`deit_s.plan` to `deit_s.plan.layers.json`."""
    return engine.with_name(engine.name + SUFFIX)


def write_layers(engine: Path, content: LayerFile | None) -> None:
    """Write the listing beside the engine, or remove that of an earlier engine of the same name."""
    path = layers_path(engine)
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_text(path, content.model_dump_json(by_alias=True, exclude_defaults=True) + "\n")


def read_layers_file(engine: Path, *, engine_sha256: str) -> LayerFile | None:
    """The listing beside an engine; None if there is none.

    Raises:
        ArtifactError: It is damaged or belongs to another engine.
    """
    path = layers_path(engine)
    if not path.is_file():
        return None
    try:
        found = LayerFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise ArtifactError(
            "is no layer listing that this version can read", path=path, remedy="Delete it, or build the engine again"
        ) from None
    if found.engine_sha256 != engine_sha256:
        raise ArtifactError(
            f"lists the layers of another engine than {engine.name}",
            path=path,
            remedy="Copy the one that belongs to it",
        )
    return found


def nodes_in(metadata: str) -> tuple[str, ...]:
    """ONNX nodes of a layer, from `[ONNX Layer: a][ONNX Layer: b]`."""
    return tuple(dict.fromkeys(_NODE.findall(metadata)))


def type_word(text: str) -> str:
    """`Half`, `FP16` or `Row major linear FP16 format` to `half`; empty if it names no type."""
    words = re.findall(r"[a-z]+\d*", text.lower())
    return next((_TYPES[word] for word in words if word in _TYPES), "")
