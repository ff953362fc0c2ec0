"""What was drawn: the JSON document, schema `tmdeploy.visualize/1`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tmdeploy.report.schemas.document import Document, Result
from tmdeploy.report.schemas.predictions import Skipped


class Panel(Document):
    """The state after one block."""

    block: int
    tokens: int = Field(description="patch tokens that are left")
    dropped: int = Field(description="patches that are in no token")


class Drawing(Document):
    """One image."""

    image: Path
    drawing: Path
    finite: bool = Field(description="whether the logits are numbers; if not, the plans mean nothing")
    blocks: tuple[Panel, ...]


class Drawings(Result):
    """All images, and those that could not be read."""

    schema_: str = Field(default="tmdeploy.visualize/1", alias="schema")
    model: dict[str, str] = Field(description="path, and what ran it")
    drawings: tuple[Drawing, ...]
    skipped: tuple[Skipped, ...]
