"""What a benchmark found: the JSON document, schema `tmdeploy.bench/1`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "tmdeploy.bench/1"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RatioRow(_Document):
    """Time relative to another arm of the same table: median and range over the rounds."""

    baseline: str
    median: float
    low: float
    high: float
    decided: bool = Field(description="every round says the same arm is faster")


class ArmRow(_Document):
    """One arm at one batch size."""

    name: str
    kind: str = Field(description="model, unmerged (its twin without reduction) or free-merge (a slice instead)")
    path: str
    batch: int
    schedule: tuple[int, ...] | None
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
    rounds_ms: tuple[tuple[float, ...], ...] = Field(description="raw samples")


class ModelRow(_Document):
    """One model file: what it costs to load and hold."""

    name: str
    path: str
    bytes: int
    load_ms: float | None
    peak_mib: float | None = Field(description="peak resident memory of a fresh process running it")
    model_mib: float | None = Field(description="of that, what opening and running the model added")


class Machine(_Document):
    """Where it was measured."""

    cpu: str
    cores: int
    platform: str
    load_before: float
    load_after: float
    versions: dict[str, str | None]
    command: str
    date: str


class BenchReport(_Document):
    """The whole result."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    tool_version: str
    boundary: str = "host: numpy images in, numpy logits out, one call a batch; the same for every arm"
    data: str
    rounds: int
    models: tuple[ModelRow, ...]
    arms: tuple[ArmRow, ...]
    warnings: tuple[str, ...]
    machine: Machine
