"""Top-K: keep the tokens the class token attends to, drop the rest."""

from __future__ import annotations

from dataclasses import dataclass

from tmdeploy.methods.registry import register
from tmdeploy.methods.spec import Leftover, MethodSpec, ReduceMode, Score, Select


@dataclass(frozen=True)
class TopKOptions:
    """No options; `--keep` and `--layers` say all there is to say."""


@register(
    "topk",
    summary="keep the most attended tokens, drop the rest",
    source="EViT without fusion (arXiv 2202.07800); Haurum et al., Which Tokens to Use?, 2023, arXiv 2308.04657",
    options=TopKOptions,
)
def topk(_: TopKOptions) -> MethodSpec:
    """Order of descending attention, as in EViT's code."""
    return MethodSpec(
        "topk",
        planner=Select(Score.CLS, Leftover.DROP, order="score"),
        mode=ReduceMode.ANCHOR,
        default_layers=(3, 6, 9),
        default_amount="0.7",
    )
