"""No reduction: the plain model, for baselines."""

from __future__ import annotations

from dataclasses import dataclass

from tmdeploy.methods.registry import method
from tmdeploy.methods.spec import MethodSpec


@dataclass(frozen=True)
class NoneOptions:
    """No options."""


@method("none", summary="no reduction: the plain ViT", source="baseline", options=NoneOptions)
def none(_: NoneOptions) -> MethodSpec:
    """The plain ViT."""
    return MethodSpec("none", planner=None)
