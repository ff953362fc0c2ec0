"""What a validation found: the JSON document, schema `tmdeploy.validate/1`.

Numbers that are not finite (a logits error where the candidate gave NaN) are null in the JSON.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, computed_field

from tmdeploy.report.schemas.document import Document, Result

SCHEMA = "tmdeploy.validate/1"
LevelName = Literal["numeric", "decisions", "model", "accuracy"]
RealisationName = Literal["native", "bodies", "standard ops", "engine"]

# JSON has no NaN and no Infinity
Measured = Annotated[
    float,
    PlainSerializer(lambda value: value if math.isfinite(value) else None, return_type=float | None, when_used="json"),
]


class Check(Document):
    """One judged number: passed if `value` is at most (or at least) `limit`."""

    level: LevelName
    name: str
    value: Measured
    limit: float
    sense: Literal["<=", ">="] = "<="
    option: str = Field(description="flag that sets the limit; - if none does")
    detail: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.value <= self.limit if self.sense == "<=" else self.value >= self.limit


class Skipped(Document):
    """A level that could not be judged, and why."""

    level: LevelName
    reason: str


class RealisationRow(Document):
    """One way in which the candidate's reduction steps can be computed, and how it was looked at."""

    name: RealisationName = Field(
        description="native kernels; function bodies; bodies inlined into the graph; an engine's kernels"
    )
    levels: bool = Field(description="the models' comparison, all levels, ran with it")
    ops: tuple[str, ...] = Field(default=(), description="ops that were run by themselves on test inputs")
    inputs: int = Field(default=0, description="test inputs of all ops together")
    wrong: tuple[str, ...] = Field(default=(), description="ops that compute something else: op, node, what differs")
    foreign: tuple[str, ...] = Field(default=(), description="bodies that are not as this version writes them")


class ImageRow(Document):
    """An image whose plan differs somewhere: the first block where it does."""

    image: str
    batch: int
    schedule: tuple[int, ...] | None = Field(description="none: the file's default")
    kind: Literal["near-tie", "divergent"]
    block: int | None
    gap: float | None = Field(description="by the reference's own signal; none: not a matter of a gap")
    tokens: int = Field(description="tokens that were decided otherwise")
    signal_error: float | None = Field(description="largest difference of the planners' inputs at that block")
    logits_error: Measured
    reason: str = ""


class Share(Document):
    """A share of the images with its 95 % Wilson interval."""

    share: float
    low: float
    high: float
    images: int


class AccuracyRow(Document):
    """Top-1 accuracy of both models, with McNemar's exact test."""

    reference: float
    candidate: float
    images: int
    only_reference: int
    only_candidate: int
    p_value: float


class ModelStats(Document):
    """Agreement of the outputs over all comparisons, near-ties included; shares are by image."""

    logits_error_max: Measured
    logits_error_agreeing_max: Measured | None = Field(description="comparisons whose plans agree")
    logits_error_near_ties_max: Measured | None = Field(description="comparisons that are near-ties; not judged")
    top1: Share = Field(description="reference's top-1 is the candidate's")
    top5: Share = Field(description="reference's top-1 is in the candidate's top-5")
    kl_mean: Measured = Field(description="KL(reference || candidate) of the softmax, nats")
    kl_max: Measured


class ValidationReport(Result):
    """The whole result."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    tool_version: str
    reference: dict[str, str]
    candidate: dict[str, str]
    data: str = Field(description="what the images were")
    images: int
    skipped_images: tuple[tuple[str, str], ...] = Field(default=(), description="path and reason")
    batch_sizes: tuple[int, ...]
    schedules: tuple[tuple[int, ...] | None, ...]
    compared: int = Field(description="image comparisons: images x batch sizes x schedules")
    agreeing: int
    reordered: int = Field(
        default=0,
        description="of the agreeing: a selection that keeps the same tokens, nearly equal scores in another order",
    )
    near_ties: int
    divergent: int
    checks: tuple[Check, ...]
    skipped: tuple[Skipped, ...] = ()
    realisations: tuple[RealisationRow, ...] = Field(
        default=(), description="by what the reduction steps are computed; none: no steps"
    )
    differing: tuple[ImageRow, ...] = ()
    model: ModelStats
    accuracy: AccuracyRow | None = None
    notes: tuple[str, ...] = Field(default=(), description="what was done otherwise than asked for, and why")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether every check passed; nothing checked is nothing passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def level_passed(self, level: LevelName) -> bool | None:
        """Whether a level passed; None if it was skipped."""
        checks = [check for check in self.checks if check.level == level]
        return all(check.passed for check in checks) if checks else None
