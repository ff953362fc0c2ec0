"""What was exported: the JSON document, schema `tmdeploy.export/2`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tmdeploy.card.card import ProofRecord
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.data.samples import counted
from tmdeploy.report.schemas.document import Result
from tmdeploy.report.schemas.validation import ValidationReport


class ExportResult(Result):
    """What was written, what the self-check found, and what was assumed about the model."""

    schema_: str = Field(default="tmdeploy.export/2", alias="schema")
    path: Path
    bytes: int
    sha256: str
    metadata: ArtifactMetadata
    proved_against: str = Field(description="what the unmerged model was proved against, in words")
    notes: tuple[str, ...] = ()
    verification: ValidationReport | None = Field(description="the file compared with PyTorch; none: it was not")


def proof_text(proof: ProofRecord | None) -> str:
    """What the unmerged model was proved against, in words."""
    if proof is None:
        return "own reimplementation only (see export --against)"
    images = counted(proof.images, "image") if proof.normalisation else counted(proof.images, "normalised image")
    differing = f", {proof.top1_differing} with another top-1" if proof.top1_differing else ""
    return f"{proof.owner_text}, unmerged: {images}, error {proof.error:.1e}, limit {proof.limit:.1e}{differing}"
