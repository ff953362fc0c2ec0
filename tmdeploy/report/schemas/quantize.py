"""What a quantisation did and what it cost: the JSON document, schema `tmdeploy.quantize/1`."""

from __future__ import annotations

from pydantic import Field

from tmdeploy.card.metadata import QuantizationRecord
from tmdeploy.report.schemas.document import Document, Result
from tmdeploy.report.schemas.validation import ValidationReport

SCHEMA = "tmdeploy.quantize/1"


class KeptNode(Document):
    """A node that could be quantised and is not."""

    node: str
    entry: str = Field(description="of the list that keeps it")


class StepAgreement(Document):
    """Plans of one reduction step."""

    block: int
    agreeing: int = Field(description="images whose plans are equal up to this step")
    images: int
    tokens_in: int = Field(description="at the file's default schedule")
    tokens_changed: float | None = Field(
        description="tokens decided otherwise, mean of the images that differ here first; none without any"
    )


class Drop(Document):
    """What is judged."""

    measure: str = Field(description="accuracy, or agreement where images carry no labels")
    value: float
    limit: float | None = Field(description="none: not judged")

    @property
    def passed(self) -> bool:
        """Whether it is within the limit."""
        return self.limit is None or self.value <= self.limit


class QuantizeReport(Result):
    """The whole result."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    tool_version: str
    model: str
    output: str
    written: bool = Field(description="false: the drop was above its limit")
    bytes_before: int
    bytes_after: int
    record: QuantizationRecord
    quantized: tuple[str, ...]
    kept: tuple[KeptNode, ...]
    planner: tuple[str, ...] = Field(description="matrix products of planners, which are never quantised")
    calibration_skipped: tuple[tuple[str, str], ...] = Field(default=(), description="path and reason")
    calibration_seconds: float
    steps: tuple[StepAgreement, ...]
    drop: Drop
    comparison: ValidationReport = Field(description="with the unquantised model, on images not calibrated on")
