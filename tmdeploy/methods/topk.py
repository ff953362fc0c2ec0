"""Top-K: keep the tokens the class token attends to, drop the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tmdeploy.methods.registry import method
from tmdeploy.methods.spec import SCORE_HELP, Leftover, MethodSpec, ReduceMode, Score, Select


@dataclass(frozen=True)
class TopKOptions:
    """What decides which tokens stay."""

    score: Literal["cls", "received", "key_norm"] = field(default="cls", metadata={"help": SCORE_HELP})


@method(
    "topk",
    summary="keep the most attended tokens, drop the rest",
    source="EViT without fusion (arXiv 2202.07800); Haurum et al., Which Tokens to Use?, 2023, arXiv 2308.04657",
    options=TopKOptions,
)
def topk(options: TopKOptions) -> MethodSpec:
    """Order of descending attention, as in EViT's code."""
    return MethodSpec(
        "topk",
        planner=Select(Score(options.score), Leftover.DROP, order="score"),
        mode=ReduceMode.ANCHOR,
        default_layers=(3, 6, 9),
        default_amount="0.7",
    )
