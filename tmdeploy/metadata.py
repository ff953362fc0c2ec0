"""What an artifact says about itself: one JSON document under one key of the ONNX file's metadata_props."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmdeploy.errors import ArtifactError

METADATA_KEY = "tmdeploy"
METADATA_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Frozen):
    """How pixels become the model's input: resize the shorter side, crop the centre, scale to [0, 1], normalise.

    The resize target of the shorter side is floor(image_size / crop_pct), timm's rule (timm.data.transforms_factory).
    """

    image_size: tuple[int, int] = Field(default=(224, 224), description="height and width of the model's input, pixels")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_pct: float = Field(default=0.875, gt=0.0, le=1.0)


class StepRecord(_Frozen):
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


class QuantizationRecord(_Frozen):
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
    source_name: str = Field(description="file name of the unquantised model")
    source_sha256: str


class ProofRecord(_Frozen):
    """What the unmerged model was compared with, beyond tmdeploy's own reading of the checkpoint (export --against)."""

    kind: Literal["module", "timm", "transformers", "outputs"] = Field(
        description="outputs: a file saved from training"
    )
    name: str = Field(description="as the user named it")
    weights: Literal["checkpoint", "own"] = Field(default="own", description="the owner's model ran with")
    images: int = Field(description="compared")
    normalisation: bool = Field(default=False, description="whether mean and standard deviation took part")
    error: float = Field(description="largest difference of a logit")
    limit: float = Field(description="largest that rounding explains")
    top1_differing: int | None = Field(default=None, description="images with another top-1 class; none: features")

    @property
    def owner_text(self) -> str:
        """The owner's model in words."""
        if self.kind == "outputs":
            return f"outputs saved in {self.name}"
        return f"your module {self.name}" if self.kind == "module" else self.name


class ArtifactMetadata(_Frozen):
    """Everything a reader of the file needs to use it right without the checkpoint it came from."""

    version: int = METADATA_VERSION
    tool_version: str
    torch_version: str
    method: str
    method_options: dict[str, str | int | float | bool] = {}
    schedule_kind: Literal["r", "keep"] | None = Field(
        default=None, description="what the amounts count; none: unmerged"
    )
    layers: tuple[int, ...] = Field(default=(), description="blocks with a reduction step, 0-based")
    schedule: tuple[int, ...] = Field(default=(), description="amount of each step: r or keep, one a layer")
    runtime_schedule: bool = Field(default=False, description="whether the graph input `r` or `keep` can override it")
    architecture: dict[str, object] = Field(description="models.arch.VitConfig as a dict")
    source_name: str = Field(description="file name of the checkpoint")
    source_sha256: str
    preprocessing: Preprocessing = Preprocessing()
    preprocessing_in_graph: bool = Field(
        default=False, description="input is uint8 [B, H, W, 3] at image_size, not f32"
    )
    class_names: tuple[str, ...] = ()
    opset: int
    precision: Literal["fp32", "fp16", "int8", "fp8"] = Field(
        default="fp32", description="int8 and fp8: of the quantised nodes, the rest is fp32"
    )
    quantization: QuantizationRecord | None = None
    lowering: Literal["custom", "portable"] = "custom"
    deterministic_planner: bool = True
    dynamic_batch: bool = True
    steps: tuple[StepRecord, ...] = ()
    proof: ProofRecord | None = Field(
        default=None,
        description="the owner's model that it was compared with; none: tmdeploy's own reimplementation only",
    )


def dump(metadata: ArtifactMetadata) -> str:
    """Serialise for `metadata_props`."""
    return metadata.model_dump_json()


def parse(text: str, *, path: str) -> ArtifactMetadata:
    """Read the JSON of `metadata_props`.

    Raises:
        ArtifactError: Not this document, or a newer version of it.
    """
    try:
        return ArtifactMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise ArtifactError(
            f"its tmdeploy metadata cannot be read ({field}: {first['msg']})",
            path=path,
            remedy="It was written by another version of tmdeploy, or damaged: export it again",
        ) from None
