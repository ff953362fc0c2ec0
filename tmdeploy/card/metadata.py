"""What an `.onnx` file says about itself: one JSON document under one key of its metadata_props."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic_core
from pydantic import Field, ValidationError

from tmdeploy.card.card import ModelCard
from tmdeploy.card.fields import FileName, Frozen, first_problem
from tmdeploy.card.upgrade import METADATA_VERSION, upgraded
from tmdeploy.errors import ArtifactError

METADATA_KEY = "tmdeploy"

_LONGEST = 16 << 20  # characters; beyond what any ViT has to say, and below what would cost memory to look at


class StepRecord(Frozen):
    """One reduction step in the graph: where it is, what it does to the counts, and what its tensors are called."""

    block: int
    op: Literal["TokenMatch", "TokenSelect"]
    num_prefix: int
    tokens_in: int = Field(description="at the default schedule")
    tokens_out: int = Field(description="at the default schedule")
    map: str = Field(description="tensor, int32 [B, N]: output slot of every token, -1 = dropped")
    index: str = Field(description="tensor, int32 [B, M]: anchor token of every slot, -1 = none")
    signal: str = Field(description="tensor the planner decided on: metric [B, N, C] (match) or score [B, N] (select)")
    metric: str | None = Field(
        default=None, description="tensor [B, N, C]: metric of a selection that merges leftovers"
    )
    x_in: str = Field(description="tensor [B, N, D] before the step")
    x_out: str = Field(description="tensor [B, M, D] after the step")
    size_in: str | None = Field(default=None, description="tensor f32 [B, N]; none before the first step")
    size_out: str | None = Field(default=None, description="tensor f32 [B, M], for methods that track sizes")

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all of them."""
        names = (self.map, self.index, self.signal, self.metric, self.x_in, self.x_out, self.size_in, self.size_out)
        return tuple(name for name in names if name is not None)


class QuantizationRecord(Frozen):
    """How a file was quantised (tmdeploy quantize)."""

    scheme: Literal["int8", "fp8"] = Field(description="int8: symmetric; fp8: E4M3FN. Weights per output channel")
    calibration: Literal["minmax", "percentile", "entropy"] = Field(description="where activations' ranges come from")
    percentile: float | None = Field(default=None, description="of magnitudes, for that calibration")
    images: int = Field(description="calibration images")
    images_sha256: str = Field(description="of what the model was given of them, in order")
    schedule: tuple[int, ...] = Field(default=(), description="the calibration ran with")
    keep_float: tuple[str, ...] = Field(default=(), description="groups, op types and patterns left in float")
    quantized: int = Field(description="matrix products and convolutions that compute in the scheme")
    kept: int = Field(description="those that compute in float")
    source_name: FileName = Field(description="file name of the unquantised model")
    source_sha256: str


class ArtifactMetadata(Frozen):
    """Everything a reader of the file needs to use it right without the checkpoint it came from."""

    version: Literal[2] = METADATA_VERSION
    card: ModelCard = Field(description="the model; all else is of the file")
    opset: int
    precision: Literal["fp32", "fp16", "int8", "fp8"] = Field(
        default="fp32", description="int8 and fp8: of the quantised nodes, the rest is fp32"
    )
    quantization: QuantizationRecord | None = None
    lowering: Literal["custom", "portable"] = "custom"
    deterministic_planner: bool = True
    dynamic_batch: bool = True
    preprocessing_in_graph: bool = Field(
        default=False, description="input is uint8 [B, H, W, 3] at image_size, not f32"
    )
    schedule_input: Literal["r", "keep"] | None = Field(
        default=None,
        description="graph input that overrides the recipe's amounts; none: they are fixed",
    )
    steps: tuple[StepRecord, ...] = ()


def dump(metadata: ArtifactMetadata) -> str:
    """Serialise for `metadata_props`."""
    return metadata.model_dump_json()


def parse(text: str, *, path: str | Path) -> ArtifactMetadata:
    """Read the JSON of `metadata_props`, of any version, and see whether it agrees with itself.

    Raises:
        ArtifactError: Not this document, a newer version of it, or one that describes nothing that could be.
    """
    if len(text) > _LONGEST:
        raise _unreadable(f"{len(text)} characters are too many", path)
    try:
        document = upgraded(pydantic_core.from_json(text), "tmdeploy metadata", path)
        metadata = ArtifactMetadata.model_validate(document)
    except ValidationError as error:
        raise _unreadable(first_problem(error), path) from None
    except ValueError as error:  # no JSON
        raise _unreadable(str(error), path) from None
    check_consistent(metadata, path)
    return metadata


def check_consistent(metadata: ArtifactMetadata, path: str | Path) -> None:
    """Refuse a document whose steps are not those of its model.

    Raises:
        ArtifactError: So it is.
    """
    problem = _contradiction(metadata)
    if problem is not None:
        raise _unreadable(problem, path)


def _unreadable(what: str, path: str | Path) -> ArtifactError:
    return ArtifactError(
        f"its tmdeploy metadata cannot be read ({what})",
        path=path,
        remedy="It was written by another version of tmdeploy, or damaged: export it again",
    )


def _contradiction(metadata: ArtifactMetadata) -> str | None:
    """The first contradiction between fields that are valid on their own; None if there is none."""
    card = metadata.card
    layers, tokens, prefix = card.reduction.layers, card.architecture.tokens, card.num_prefix
    if tuple(step.block for step in metadata.steps) != layers:
        return f"steps: {len(metadata.steps)} of other blocks than the {len(layers)} layers"
    for step in metadata.steps:
        if step.num_prefix != prefix or step.tokens_in != tokens or not 1 <= step.tokens_out <= tokens:
            return f"steps: {step.tokens_in} to {step.tokens_out} tokens in block {step.block}, where {tokens} arrive"
        tokens = step.tokens_out
    return None
