"""`model.plan.json`, beside every engine: what it is, what it needs, and how to make it again."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmdeploy.card.card import ModelCard
from tmdeploy.card.fields import FileName, first_problem
from tmdeploy.card.metadata import ArtifactMetadata, check_consistent
from tmdeploy.card.upgrade import SIDECAR_VERSION, upgraded
from tmdeploy.errors import ArtifactError
from tmdeploy.system.files import write_text
from tmdeploy.tensorrt.record.kernels import KernelCount
from tmdeploy.tensorrt.record.layers import layers_path
from tmdeploy.tensorrt.record.profiles import BatchRange, ScheduleRange
from tmdeploy.tensorrt.sdk.flavor import Flavor

Precision = Literal[
    "fp32", "tf32", "fp16", "bf16",
    "int8", "int8+tf32", "int8+fp16", "int8+bf16",
    "fp8", "fp8+tf32", "fp8+fp16", "fp8+bf16",
]  # fmt: skip


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Vehicle(str, Enum):
    """What carries the ops of the domain: a plugin library, ahead-of-time plugins, or nothing but standard ops."""

    LIBRARY = "library"
    AOT = "aot"
    NONE = "none"


class Tensor(_Frozen):
    """An input or output of the engine; -1 is a dimension that profiles bound."""

    name: str
    type: str
    shape: tuple[Annotated[int, Field(ge=-1, lt=2**31)], ...] = Field(max_length=8)
    shape_input: bool = Field(default=False, description="its values are shapes, read on the host")


class PluginRecord(_Frozen):
    """The plugin library that the engine was built with."""

    path: FileName
    sha256: str
    embedded: bool = Field(description="the engine carries it, so the file is not needed")


class PluginLayer(_Frozen):
    """A node that became a plugin layer, and the creator that TensorRT looks up for it."""

    node: str
    creator: str
    version: str
    namespace: str


class PtxRecord(_Frozen):
    """A file of kernels that ahead-of-time plugins put into the engine."""

    file: str
    sha256: str
    architecture: str = Field(description="such as compute_75")


class RefitRecord(_Frozen):
    """Where the weights came from, for an engine that got them after it was built."""

    source_name: FileName
    source_sha256: str
    engine_sha256: str = Field(description="of the engine that was refitted")
    command: FileName


class Options(_Frozen):
    """How it was built, by trtexec's words."""

    workspace_mib: int | None = None
    builder_optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: Literal["none", "ampere+", "same-cc"] = "none"
    strip_weights: bool = False
    refittable: bool = Field(default=False, description="takes other weights than those it was built with")
    weight_streaming: bool = False
    profiling_verbosity: Literal["none", "layer-names-only", "detailed"] = "detailed"


class BuildMemory(_Frozen):
    """Memory by the builder's log; None: it does not say."""

    activation_bytes: int | None = Field(default=None, description="of the largest profile, while it runs")
    scratch_bytes: int | None = Field(default=None, description="the part of it that is one layer's scratch space")
    weights_bytes: int | None = None
    host_persistent_bytes: int | None = None
    device_persistent_bytes: int | None = None
    builder_peak_cpu_mib: int | None = Field(default=None, description="of TensorRT's own allocators while building")
    builder_peak_gpu_mib: int | None = None


class EngineRecord(_Frozen):
    """The sidecar."""

    schema_: str = Field(default="tmdeploy.engine/2", alias="schema")
    version: Literal[2] = SIDECAR_VERSION
    tool_version: str
    flavor: Flavor
    tensorrt_version: str
    platform: str = Field(description="operating system and machine it was built for: linux-x86_64")
    gpu: str | None = Field(default=None, description="name; none where it was built without one")
    sm: str | None = Field(default=None, description="compute capability of that GPU: sm_89")
    target_sm: tuple[str, ...] = Field(default=(), description="of TensorRT-RTX; empty: its own default")
    bytes: int
    sha256: str
    source_name: FileName
    source_sha256: str
    precision: Precision = Field(
        description="of a quantised file: the scheme, and what the rest computes in if that is not fp32"
    )
    keep_fp32: tuple[str, ...] = ()
    lowering: Literal["plugin", "portable"]
    profiles: tuple[BatchRange, ...]
    schedule: ScheduleRange | None = None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    vehicle: Vehicle = Field(default=Vehicle.NONE, description="of the ops of the domain, where they are plugins")
    plugin: PluginRecord | None = None
    plugin_layers: tuple[PluginLayer, ...] = ()
    ptx: tuple[PtxRecord, ...] = Field(default=(), description="of ahead-of-time plugins")
    options: Options = Options()
    layers: int = Field(description="of the network, before TensorRT fused them")
    kernels: KernelCount | None = Field(default=None, description="of the first profile, by the build log")
    memory: BuildMemory | None = Field(default=None, description="by the build log")
    graph_sha256: str | None = Field(default=None, description="of the graph without weights, as it was parsed")
    refit: RefitRecord | None = None
    build_seconds: float
    command: FileName = Field(description="makes it again")
    notes: tuple[str, ...] = ()
    model: ArtifactMetadata | None = Field(default=None, description="of the ONNX file; none for a foreign one")

    @property
    def card(self) -> ModelCard | None:
        """What its model is; None for a foreign one."""
        return None if self.model is None else self.model.card

    @property
    def metadata(self) -> ArtifactMetadata | None:
        """`model` with the schedule's input as the engine has it, none where its schedule is fixed."""
        kind = None if self.schedule is None else self.schedule.kind
        return None if self.model is None else self.model.model_copy(update={"schedule_input": kind})

    @property
    def source(self) -> str:
        """`source_name` for a command line: quoted, and never an option."""
        name = PurePath(self.source_name).name or "MODEL.onnx"
        return shlex.quote(f"./{name}" if name.startswith("-") else name)

    @property
    def stripped(self) -> bool:
        """Whether it has no weights, so that it cannot run before it is refitted."""
        return self.options.strip_weights and self.refit is None


def build_again(engine: Path, record: EngineRecord) -> str:
    """A command for remedies; not the sidecar's own: who wrote it must not choose what the user is told to run."""
    return f"tmdeploy build {record.source} -o {shlex.quote(str(engine))}"


def step_blocks(record: EngineRecord) -> tuple[int, ...]:
    """Block of every reduction step; empty for a foreign file."""
    return record.card.reduction.layers if record.card is not None else ()


def sidecar_path(engine: Path) -> Path:
    """`deit_s.plan` to `deit_s.plan.json`."""
    return engine.with_name(engine.name + ".json")


def engine_files(engine: Path) -> dict[str, Path]:
    """All that is written with an engine: itself by the option that names it, its companions by what they are."""
    return {"-o": engine, "the sidecar": sidecar_path(engine), "the layer listing": layers_path(engine)}


def write_sidecar(engine: Path, record: EngineRecord) -> None:
    """Write it atomically. Raises ArtifactError as `files.atomic_path` does."""
    write_text(sidecar_path(engine), record.model_dump_json(by_alias=True, indent=2) + "\n")


def read_sidecar(engine: Path) -> EngineRecord:
    """Read the sidecar of an engine, of any version.

    Raises:
        ArtifactError: It is missing, damaged, or of a newer version.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ArtifactError(
            f"has no sidecar '{path.name}' beside it, which says what the engine takes and needs",
            path=engine,
            remedy=f"Copy it from where the engine was built, or build again: tmdeploy build MODEL.onnx -o {engine}",
        )
    try:
        document = upgraded(pydantic_core.from_json(path.read_bytes()), "sidecar", path)
        record = EngineRecord.model_validate(document)
    except ValueError as error:  # no JSON, no UTF-8, or another document
        what = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(
            f"is no sidecar that this version can read ({what})",
            path=path,
            remedy=f"It is damaged, or of another version of tmdeploy: build again with -o {engine}",
        ) from None
    if record.model is not None:
        check_consistent(record.model, path)
    return record
