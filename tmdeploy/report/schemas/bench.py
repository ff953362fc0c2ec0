"""What a benchmark found: the JSON document, schema `tmdeploy.bench/1`."""

from __future__ import annotations

from pydantic import Field

from tmdeploy.report.schemas.document import Document, Result

SCHEMA = "tmdeploy.bench/1"


class RatioRow(Document):
    """Time relative to another arm of the same table: median and range over the rounds."""

    baseline: str
    median: float
    low: float
    high: float
    decided: bool = Field(description="every round says the same arm is faster")


class Spread(Document):
    """Statistics of one measurement over all calls, as trtexec defines them."""

    median_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    cv: float = Field(description="standard deviation over mean")
    percentiles_ms: dict[str, float] = Field(description="by percentile; a call that was measured")
    calls: int


class Clocks(Document):
    """The GPU's clock before and after every round of an arm."""

    sm_mhz_low: int
    sm_mhz_high: int
    readings: int
    throttled: tuple[str, ...] = Field(description="what slowed the GPU down at any reading")


class GpuTimes(Document):
    """Times of an engine.

    By CUDA events: h2d, compute, d2h and their sum latency. By the host's clock: enqueue, and host, a whole call.
    """

    cuda_graph: bool
    transfers: bool = Field(description="images and logits are copied; false: they stay on the device")
    single: dict[str, Spread] = Field(description="one call at a time")
    queued: dict[str, Spread] = Field(description="two calls on the stream, the host ahead of the GPU, as in trtexec")
    single_images_per_s: float = Field(description="images over the host's time, one call at a time")
    queued_images_per_s: float = Field(description="images over the host's time, queued: trtexec's throughput")
    clocks: Clocks | None = Field(default=None, description="none where they could not be read")


class ArmRow(Document):
    """One arm at one batch size."""

    number: int = Field(default=0, description="from 1, the same at every batch size; tables and warnings use it")
    name: str
    kind: str = Field(description="model, unmerged (its twin without reduction) or free-merge (a slice instead)")
    path: str
    batch: int
    schedule: tuple[int, ...] | None
    amounts: str | None = Field(default=None, description="r or keep it runs with, as r=13; none: it merges nothing")
    backend: dict[str, str]
    precision: str
    median_ms: float = Field(description="a batch; median of the rounds' medians")
    mean_ms: float
    min_ms: float
    percentiles_ms: dict[str, float] = Field(description="by percentile, over all calls")
    cv: float
    calls: int
    stable_warm_up: bool
    images_per_s: float
    gmacs: float | None = Field(description="an image")
    ratio: RatioRow | None = Field(default=None, description="to the arm's baseline")
    mac_ratio: float | None = None
    realised: float | None = Field(
        default=None, description="share of the MAC saving that arrived as time: (1 - t/t0) / (1 - m/m0)"
    )
    pytorch: RatioRow | None = Field(
        default=None, description="time of an engine relative to the PyTorch arm of the same MACs on the same device"
    )
    boundary: str | None = Field(default=None, description="what a call is, where it is not the report's boundary")
    gpu: GpuTimes | None = Field(default=None, description="of an engine")
    compute: Spread | None = Field(
        default=None, description="of a checkpoint on a GPU: the module alone, without copies, by CUDA events"
    )
    rounds_ms: tuple[tuple[float, ...], ...] = Field(description="raw samples")


class GpuMemory(Document):
    """Of an engine, bytes: what TensorRT states, and what the driver counted in a fresh process."""

    weights: int | None = Field(description="stated; none where TensorRT does not say, as 10.13")
    activations: int = Field(description="stated: of a context, at its largest profile")
    profiles: tuple[int, ...] = Field(description="the same, by profile")
    buffers: int = Field(description="inputs and outputs of the largest batch")
    streamable: int = Field(description="stated: weights that can stay on the host")
    streaming: int = Field(description="stated: to stream them through")
    loaded: int = Field(description="counted: taken by loading, the CUDA context not included")
    running: int = Field(description="counted: taken after a few calls")


class ModelRow(Document):
    """One model file: what it costs to load and hold."""

    name: str
    path: str
    backend: str | None = Field(default=None, description="as asked for, where there are several")
    bytes: int
    load_ms: float | None
    peak_mib: float | None = Field(description="peak resident memory of a fresh process running it")
    model_mib: float | None = Field(description="of that, what opening and running the model added")
    gpu: GpuMemory | None = Field(default=None, description="of an engine")


class GateRow(Document):
    """One merged arm against the limit of --min-speedup or --max-ratio."""

    arm: str
    batch: int
    ratio: float = Field(description="its time over its unmerged twin's")
    limit: float = Field(description="largest ratio allowed")
    passed: bool


class Machine(Document):
    """Where it was measured."""

    cpu: str
    cores: int
    platform: str
    load_before: float
    load_after: float
    versions: dict[str, str | None]
    command: str
    date: str


class BenchReport(Result):
    """The whole result."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    tool_version: str
    boundary: str = "host: numpy images in, numpy logits out, one call a batch; the same for every arm"
    data: str
    rounds: int
    models: tuple[ModelRow, ...]
    arms: tuple[ArmRow, ...]
    gate: tuple[GateRow, ...] = ()
    warnings: tuple[str, ...]
    machine: Machine
