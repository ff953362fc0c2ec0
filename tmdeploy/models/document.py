"""What tmdeploy's own checkpoints say about themselves besides the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.metadata import Preprocessing, first_problem
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import CheckpointError, UsageError

FORMAT: Final = "tmdeploy"
VERSION = 1
_LARGEST = 2**31 - 1


class Description(BaseModel):
    """All that export needs besides the weights.

    Attributes:
        architecture: The model.
        recipe: How it was trained to reduce its tokens; None if it was not.
        preprocessing: How images become its input.
        class_names: One a class, or none at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: VitConfig
    recipe: Recipe | None = None
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: The recipe is not possible in the architecture, or there is not one name a class.
        """
        config = self.architecture
        if self.class_names and len(self.class_names) != config.num_classes:
            raise UsageError(f"{len(self.class_names)} class names for {config.num_classes} classes")
        if self.preprocessing.image_size != config.image_size:
            raise UsageError(
                f"preprocessing makes images of {self.preprocessing.image_size}, the model takes {config.image_size}"
            )
        if self.recipe is not None:
            absent = [layer for layer in self.recipe.layers if not 0 <= layer < config.depth]
            if absent:
                raise UsageError(f"a reduction step in block {absent[0]} of {config.depth} blocks")
            if any(amount > _LARGEST for amount in self.recipe.amounts):
                raise UsageError("an amount of its schedule is beyond any number of tokens")
            self.recipe.steps(config.tokens, config.num_prefix)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tmdeploy"] = FORMAT
    version: int = VERSION
    config: Description


def dump(description: Description) -> dict[str, Any]:
    """As plain JSON types, with format and version."""
    return _Document(config=description).model_dump(mode="json")


def parse(document: Mapping[str, object], path: Path) -> Description:
    """Read what `dump` wrote.

    Raises:
        CheckpointError: Another version, damaged, or contradictory.
    """
    remedy = "Save it again with tmdeploy.models.checkpoint.save_checkpoint"
    version = document.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        known = version.bit_length() < 64 if isinstance(version, int) else isinstance(version, str)
        said = f"version {version}" if known else "no known version"
        raise CheckpointError(
            f"is a tmdeploy checkpoint of {said}; this tmdeploy reads up to {VERSION}",
            path=path,
            remedy="Update tmdeploy",
        )
    try:
        description = _Document.model_validate(dict(document)).config
        description.check()
    except ValidationError as error:
        raise CheckpointError(
            f"its tmdeploy description is damaged ({first_problem(error)})", path=path, remedy=remedy
        ) from None
    except UsageError as error:
        raise CheckpointError(
            f"its tmdeploy description contradicts itself ({error.message})", path=path, remedy=remedy
        ) from None
    except (ArithmeticError, RecursionError, ValueError) as error:  # numbers of any length, nesting of any depth
        raise CheckpointError(
            f"its tmdeploy description is damaged ({type(error).__name__})", path=path, remedy=remedy
        ) from None
    return description
