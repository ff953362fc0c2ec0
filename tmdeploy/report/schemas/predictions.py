"""What a model saw in images: the JSON document, schema `tmdeploy.infer/1`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tmdeploy.report.schemas.document import Document, Result


class Skipped(Document):
    """An image that could not be read, and why."""

    path: Path
    reason: str


class Guess(Document):
    """One class of an image's top-k."""

    rank: int
    index: int
    name: str
    probability: float


class Prediction(Document):
    """An image and its most probable classes, best first; none where `problem` says why there can be none."""

    path: Path
    top: tuple[Guess, ...]
    problem: str | None = None


class Predictions(Result):
    """All images, and those that could not be read."""

    schema_: str = Field(default="tmdeploy.infer/1", alias="schema")
    model: dict[str, str] = Field(description="path, and what ran it")
    images: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]

    @property
    def unclassified(self) -> tuple[Prediction, ...]:
        """Images that were read and have no classes."""
        return tuple(image for image in self.images if image.problem is not None)
