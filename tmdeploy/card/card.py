"""`ModelCard`: what a model is. Every artifact carries one: checkpoints, `.onnx` files, engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.facts import AnyConfig
from tmdeploy.card.fields import LARGEST, FileName, Frozen
from tmdeploy.card.macs import MacCount, model_macs
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import Recipe
from tmdeploy.card.schedule import Step
from tmdeploy.card.upgrade import CARD_VERSION


class Assumption(Frozen):
    """Something that the names and shapes of a checkpoint's weights cannot settle, and what was taken for it."""

    key: str = Field(description="as in `--assume KEY=VALUE`")
    value: str
    why: str = Field(description="where the value is from, a few words")
    alternatives: dict[str, str] = Field(
        default={}, description="other values by the known architecture of the same shapes that has them"
    )


class ProofRecord(Frozen):
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


class Provenance(Frozen):
    """Where the weights are from, and what read them."""

    source_name: FileName = Field(description="file name of the checkpoint, or the module's name")
    source_sha256: str = Field(description="of the checkpoint, or of the module's weights")
    tool_version: str = Field(description="of the tmdeploy that read them")
    torch_version: str


class ModelCard(Frozen):
    """Everything that is true of a model whatever file it lies in; what is true of a file contains one.

    A card whose parts contradict each other cannot be made: pydantic's ValidationError says what does not fit.
    """

    version: Literal[1] = CARD_VERSION
    architecture: AnyConfig
    recipe: Recipe | None = Field(
        default=None, description="how it reduces its tokens; none: a checkpoint that does not say"
    )
    preprocessing: Preprocessing = Preprocessing()
    class_names: tuple[str, ...] = Field(default=(), description="one a class, or none at all")
    assumptions: tuple[Assumption, ...] = Field(
        default=(), description="what the checkpoint did not settle; none if it states all"
    )
    proof: ProofRecord | None = Field(
        default=None,
        description="the owner's model that it was compared with; none: tmdeploy's own reimplementation only",
    )
    provenance: Provenance | None = Field(default=None, description="none inside a checkpoint, which is the source")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ModelCard:
        config, recipe = self.architecture, self.recipe
        if self.preprocessing.image_size != config.image_size:
            made, taken = (" x ".join(map(str, size)) for size in (self.preprocessing.image_size, config.image_size))
            raise ValueError(f"preprocessing makes images of {made}, the model takes {taken}")
        if self.class_names and len(self.class_names) != config.num_classes:
            raise ValueError(f"{len(self.class_names)} class names for {config.num_classes} classes")
        if recipe is not None:
            absent = [layer for layer in recipe.layers if not 0 <= layer < config.depth]
            if absent:
                raise ValueError(f"a reduction step in block {absent[0]} of {config.depth} blocks")
            if any(not 0 <= amount <= LARGEST for amount in recipe.amounts):
                raise ValueError("an amount of its schedule is negative, or beyond any number of tokens")
        return self

    @property
    def num_prefix(self) -> int:
        """Prefix tokens."""
        return self.architecture.num_prefix

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 means no head (features)."""
        return self.architecture.num_classes

    @property
    def reduction(self) -> Recipe:
        """The recipe; that of no reduction where none is known."""
        return self.recipe or Recipe(method="none")

    @property
    def source_name(self) -> str:
        """File name of the checkpoint, or the module's name."""
        return self.architecture.name if self.provenance is None else self.provenance.source_name

    @property
    def reduces(self) -> bool:
        """Whether there is a reduction step."""
        return bool(self.reduction.layers)

    @property
    def schedule_kind(self) -> Literal["r", "keep"] | None:
        """What amounts count; None for a model that reduces nothing.

        Raises:
            UsageError: Its method is none that is known here.
        """
        return self.reduction.spec.schedule_kind

    def steps(self, amounts: Sequence[int] | None = None) -> tuple[Step, ...]:
        """Token counts, reduction step by step.

        Args:
            amounts: Instead of the recipe's own.

        Raises:
            UsageError: Not one amount per step, a negative one, or a method that is not known here.
        """
        return self.reduction.steps(self.architecture.tokens, self.num_prefix, amounts)

    def macs(self, amounts: Sequence[int] | None = None) -> MacCount | None:
        """MACs of one image, by block; None of a module of the user's own, whose blocks may hold anything.

        Args:
            amounts: As for `steps`.

        Raises:
            UsageError: As `steps`.
        """
        if not isinstance(self.architecture, VitConfig):
            return None
        return model_macs(self.architecture, self.steps(amounts), self.reduction.spec)

    def total_macs(self, amounts: Sequence[int] | None = None) -> int | None:
        """The sum of `macs`, which papers report. Raises as it does."""
        counted = self.macs(amounts)
        return None if counted is None else counted.total

    @property
    def unmerged_macs(self) -> int | None:
        """The same with nothing removed."""
        return model_macs(self.architecture).total if isinstance(self.architecture, VitConfig) else None

    def parse_schedule(self, text: str, option: str) -> tuple[int, ...]:
        """Amounts from what a user typed after `option`: `Recipe.parse` for this model. Raises as it does."""
        return self.reduction.parse(text, option, tokens=self.architecture.tokens, prefix=self.num_prefix)

    def remarks(self, amounts: Sequence[int] | None = None, text: str | None = None) -> tuple[str, ...]:
        """What to tell the user about a schedule, its own or another: `schedule.remarks`."""
        config = self.architecture
        return self.reduction.remarks(
            tokens=config.tokens, prefix=config.num_prefix, depth=config.depth, amounts=amounts, text=text
        )

    def replace(self, **changes: object) -> ModelCard:
        """A copy with these fields changed, and checked as a new one is."""
        return ModelCard.model_validate({**dict(self), **changes})
