"""What an artifact says about itself: one JSON document under one key of the ONNX file's metadata_props."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tmdeploy.errors import ArtifactError

METADATA_KEY = "tmdeploy"
METADATA_VERSION = 1

# Beyond what any ViT is, and below what would cost memory to look at.
_LONGEST, _LARGEST = 16 << 20, 2**31 - 1
Side = Annotated[int, Field(ge=1, le=1 << 14)]  # pixels; a bound on what a file may make us allocate
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


def _encodable(text: object) -> object:
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


# A file name, of which bytes that are no UTF-8 are written as `\udcff`: a document could not hold them.
FileName = Annotated[str, BeforeValidator(_encodable)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Frozen):
    """How pixels become the model's input: resize the shorter side, crop the centre, scale to [0, 1], normalise.

    The resize target of the shorter side is floor(image_size / crop_pct), timm's rule (timm.data.transforms_factory).
    With crop_mode `squash` both sides are resized to their targets, whatever the picture's proportions.
    """

    image_size: tuple[Side, Side] = Field(
        default=(224, 224), description="height and width of the model's input, pixels"
    )
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_pct: float = Field(default=0.875, ge=0.1, le=1.0, description="published models have 0.7 to 1")
    crop_mode: Literal["center", "squash"] = "center"


class Assumption(_Frozen):
    """Something that the names and shapes of a checkpoint's weights cannot settle, and what was taken for it."""

    key: str = Field(description="as in `--assume KEY=VALUE`")
    value: str
    why: str = Field(description="where the value is from, a few words")
    alternatives: dict[str, str] = Field(
        default={}, description="other values by the known architecture of the same shapes that has them"
    )


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

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all of them."""
        names = (self.map, self.index, self.signal, self.metric, self.x_in, self.x_out, self.size_in, self.size_out)
        return tuple(name for name in names if name is not None)


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
    source_name: FileName = Field(description="file name of the unquantised model")
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
    architecture: dict[str, object] = Field(
        description="models.arch.VitConfig as a dict; models.facts.ModelFacts of a module of the user's own"
    )
    source_name: FileName = Field(description="file name of the checkpoint, or the module's name")
    source_sha256: str = Field(description="of the checkpoint, or of the module's weights")
    preprocessing: Preprocessing = Preprocessing()
    preprocessing_in_graph: bool = Field(
        default=False, description="input is uint8 [B, H, W, 3] at image_size, not f32"
    )
    assumptions: tuple[Assumption, ...] = Field(
        default=(), description="what the checkpoint did not settle; none if it states all"
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


def parse(text: str, *, path: str | Path) -> ArtifactMetadata:
    """Read the JSON of `metadata_props`, and see whether it agrees with itself.

    Raises:
        ArtifactError: Not this document, a newer version of it, or one that describes nothing that could be.
    """
    if len(text) > _LONGEST:
        raise _unreadable(f"{len(text)} characters are too many", path)
    check_version(text, METADATA_VERSION, "tmdeploy metadata", path)
    try:
        metadata = ArtifactMetadata.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(first_problem(error), path) from None
    check_consistent(metadata, path)
    return metadata


def check_consistent(metadata: ArtifactMetadata, path: str | Path) -> None:
    """Refuse a document that describes nothing that could be.

    Raises:
        ArtifactError: Its fields contradict each other.
    """
    problem = _contradiction(metadata)
    if problem is not None:
        raise _unreadable(problem, path)


class _Version(BaseModel):
    version: int = 1


def check_version(text: str, known: int, what: str, path: str | Path) -> None:
    """Refuse a document that a newer tmdeploy wrote, before anything else in it is complained about.

    Args:
        text: JSON with a `version`; what is none is left to whoever reads all of it.
        known: The newest version that can be read.
        what: It is.
        path: Where it is.

    Raises:
        ArtifactError: It is newer.
    """
    try:
        version = _Version.model_validate_json(text).version
    except ValidationError:
        return
    if version > known:
        raise ArtifactError(
            f"its {what} has version {version}, and this tmdeploy reads up to {known}",
            path=path,
            remedy="A newer tmdeploy wrote it: upgrade this one",
        )


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found, as `field: what`."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    what = found["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _unreadable(what: str, path: str | Path) -> ArtifactError:
    return ArtifactError(
        f"its tmdeploy metadata cannot be read ({what})",
        path=path,
        remedy="It was written by another version of tmdeploy, or damaged: export it again",
    )


def _contradiction(metadata: ArtifactMetadata) -> str | None:
    """What cannot be, in a document whose fields each can."""
    from tmdeploy.card.facts import read_config  # which needs Preprocessing

    try:
        config = read_config(metadata.architecture)
    except ValidationError as error:
        return f"architecture.{first_problem(error)}"
    if metadata.preprocessing.image_size != config.image_size:
        return "preprocessing.image_size: another one than the architecture's"
    layers, amounts = metadata.layers, metadata.schedule
    if any(not 0 <= layer < config.depth for layer in layers) or list(layers) != sorted(set(layers)):
        return f"layers: not blocks of {config.depth} in ascending order"
    if len(amounts) != len(layers):
        return f"schedule: {len(amounts)} amounts for {len(layers)} layers"
    if any(not 0 <= amount <= _LARGEST for amount in amounts):
        return "schedule: an amount is negative or absurd"
    if metadata.schedule_kind is None and (layers or metadata.runtime_schedule):
        return "schedule_kind: missing"
    if tuple(step.block for step in metadata.steps) != layers:
        return f"steps: {len(metadata.steps)} of other blocks than the {len(layers)} layers"
    tokens = config.tokens
    for step in metadata.steps:
        if step.num_prefix != config.num_prefix or step.tokens_in != tokens or not 1 <= step.tokens_out <= tokens:
            return f"steps: {step.tokens_in} to {step.tokens_out} tokens in block {step.block}, where {tokens} arrive"
        tokens = step.tokens_out
    return None
