"""What a validation found: the JSON document, schema `tmdeploy.validate/1`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "tmdeploy.validate/1"
LevelName = Literal["numeric", "decisions", "model", "accuracy"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Check(_Document):
    """One judged number: passed if `value` is at most (or at least) `limit`."""

    level: LevelName
    name: str
    value: float
    limit: float
    sense: Literal["<=", ">="] = "<="
    option: str = Field(description="flag that sets the limit")
    detail: str = ""

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.value <= self.limit if self.sense == "<=" else self.value >= self.limit


class Skipped(_Document):
    """A level that could not be judged, and why."""

    level: LevelName
    reason: str


class ImageRow(_Document):
    """An image whose plan differs somewhere."""

    image: str
    batch: int
    schedule: tuple[int, ...] | None = Field(description="none: the file's default")
    kind: Literal["near-tie", "divergent"]
    block: int | None
    gap: float | None = Field(description="none: not a matter of a gap")
    tokens: int
    logits_error: float
    reason: str = ""


class Share(_Document):
    """A share of the images with its 95 % Wilson interval."""

    share: float
    low: float
    high: float
    images: int


class AccuracyRow(_Document):
    """Top-1 accuracy of both models, with McNemar's exact test."""

    reference: float
    candidate: float
    images: int
    only_reference: int
    only_candidate: int
    p_value: float


class ModelStats(_Document):
    """Agreement of the outputs over all images, near-ties included."""

    logits_error_max: float
    logits_error_agreeing_max: float | None = Field(description="images whose plans agree")
    top1: Share
    top5: Share
    kl_mean: float
    kl_max: float


class ValidationReport(_Document):
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
    near_ties: int
    divergent: int
    checks: tuple[Check, ...]
    skipped: tuple[Skipped, ...] = ()
    differing: tuple[ImageRow, ...] = ()
    model: ModelStats
    accuracy: AccuracyRow | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def level_passed(self, level: LevelName) -> bool | None:
        """Whether a level passed; None if it was skipped."""
        checks = [check for check in self.checks if check.level == level]
        return all(check.passed for check in checks) if checks else None
