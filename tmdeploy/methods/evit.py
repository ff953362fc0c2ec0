"""EViT: keep the tokens the class token attends to, fuse the rest into one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tmdeploy.methods.registry import method
from tmdeploy.methods.spec import SCORE_HELP, Leftover, MethodSpec, ReduceMode, Score, Select, Weight


@dataclass(frozen=True)
class EViTOptions:
    """What decides which tokens stay."""

    score: Literal["cls", "received", "key_norm"] = field(default="cls", metadata={"help": SCORE_HELP})


@method(
    "evit",
    summary="keep the most attended tokens, fuse the rest into one",
    source="Liang et al., Not All Patches are What You Need, ICLR 2022, arXiv 2202.07800",
    options=EViTOptions,
)
def evit(options: EViTOptions) -> MethodSpec:
    """The fused token is the attention-weighted sum, not divided by the attention's sum, as in the official code."""
    return MethodSpec(
        "evit",
        planner=Select(Score(options.score), Leftover.FUSE, order="score"),
        mode=ReduceMode.SUM,
        weight=Weight.KEPT_ONE,
        default_layers=(3, 6, 9),
        default_amount="0.7",
    )
