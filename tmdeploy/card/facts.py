"""What a file knows of a model that is none of ours: enough to run, schedule and draw it, not to count its MACs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from tmdeploy.card.arch import VitConfig


class ModelFacts(BaseModel):
    """A module of the user's own, as `tmdeploy.export` saw it. It has what it shares with VitConfig by the same names.

    Attributes:
        module: Its class.
        name: What to call it.
        image_size: Height and width of the input, pixels.
        in_channels: Input channels.
        tokens: Tokens that enter block 0.
        num_prefix: Prefix tokens among them.
        grid: Patches down and across; None where the module does not say.
        width: Width of a token.
        depth: Blocks.
        heads: Attention heads; None where blocks differ.
        num_classes: Outputs of the head; 0 means no head (features).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    name: str
    image_size: tuple[int, int]
    in_channels: int = Field(ge=1)
    tokens: int = Field(ge=1, le=1 << 20)
    num_prefix: int = Field(ge=0)
    grid: tuple[int, int] | None = None
    width: int = Field(ge=1)
    depth: int = Field(ge=1, le=1000)
    heads: int | None = Field(default=None, ge=1)
    num_classes: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_possible(self) -> ModelFacts:
        if min(self.image_size) < 1 or max(self.image_size) > 1 << 14 or self.num_prefix >= self.tokens:
            raise ValueError("a size or count cannot be")
        if self.grid is not None and self.grid[0] * self.grid[1] != self.tokens - self.num_prefix:
            raise ValueError(f"{self.grid[0]} x {self.grid[1]} are not {self.tokens - self.num_prefix} patches")
        return self


def _kind(architecture: object) -> str:
    own = "module" in architecture if isinstance(architecture, Mapping) else isinstance(architecture, ModelFacts)
    return "module" if own else "vit"


# Either, told apart by whether there is a `module`.
AnyConfig = Annotated[Annotated[VitConfig, Tag("vit")] | Annotated[ModelFacts, Tag("module")], Discriminator(_kind)]
