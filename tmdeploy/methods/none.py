"""No reduction: the plain model, for baselines."""

from __future__ import annotations

from dataclasses import dataclass

from tmdeploy.methods.registry import register
from tmdeploy.methods.spec import MethodSpec


@dataclass(frozen=True)
class NoneOptions:
    """No options."""


@register("none", summary="no reduction: the plain ViT", source="baseline", options=NoneOptions)
def none(_: NoneOptions) -> MethodSpec:
    """The plain ViT."""
    return MethodSpec("none", planner=None)
