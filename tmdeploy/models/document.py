"""What tmdeploy's own checkpoints say about themselves besides the weights: their model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from tmdeploy.card.card import ModelCard
from tmdeploy.card.fields import Frozen, first_problem
from tmdeploy.card.upgrade import CHECKPOINT_VERSION, upgraded
from tmdeploy.errors import CheckpointError, UsageError

FORMAT: Final = "tmdeploy"


class _Document(Frozen):
    format: Literal["tmdeploy"] = FORMAT
    version: Literal[2] = CHECKPOINT_VERSION
    card: ModelCard


def dump(card: ModelCard) -> dict[str, Any]:
    """As plain JSON types, with format and version."""
    return _Document(card=card).model_dump(mode="json")


def own_entries(held: Mapping[str, object]) -> dict[str, object]:
    """What `dump` wrote, of any version, out of a mapping that holds weights, too."""
    return {key: held[key] for key in ("format", "version", "card", "config") if key in held}


def parse(document: Mapping[str, object], path: Path) -> ModelCard:
    """Read what `dump` wrote, of any version.

    Raises:
        CheckpointError: A newer version, damaged, or contradictory.
    """
    remedy = "Save it again with tmdeploy.models.checkpoint.save_checkpoint"
    try:
        known = upgraded(dict(document), "tmdeploy description", path, error=CheckpointError)
        card = _Document.model_validate(known).card
        card.steps()
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
    return card
