"""What a model is: architecture, recipe, schedule, preprocessing, MACs. No torch in here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tmdeploy.card.arch import VitConfig
    from tmdeploy.card.card import Assumption, ModelCard, ProofRecord, Provenance
    from tmdeploy.card.facts import ModelFacts
    from tmdeploy.card.preprocessing import Preprocessing
    from tmdeploy.card.recipe import Recipe

__all__ = [
    "Assumption",
    "ModelCard",
    "ModelFacts",
    "Preprocessing",
    "ProofRecord",
    "Provenance",
    "Recipe",
    "VitConfig",
]
_ELSEWHERE = {"ModelFacts": "facts", "Preprocessing": "preprocessing", "Recipe": "recipe", "VitConfig": "arch"}


def __getattr__(name: str) -> object:
    """On first use: importing one part does not import all."""
    if name not in __all__:
        raise AttributeError(f"module 'tmdeploy.card' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tmdeploy.card.{_ELSEWHERE.get(name, 'card')}"), name)
