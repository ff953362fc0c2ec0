"""EViT: keep the tokens the class token attends to, fuse the rest into one."""

from __future__ import annotations

from dataclasses import dataclass

from tmdeploy.methods.registry import register
from tmdeploy.methods.spec import Leftover, MethodSpec, ReduceMode, Score, Select, Weight


@dataclass(frozen=True)
class EViTOptions:
    """No options; `--keep` and `--layers` say all there is to say."""


@register(
    "evit",
    summary="keep the most attended tokens, fuse the rest into one",
    source="Liang et al., Not All Patches are What You Need, ICLR 2022, arXiv 2202.07800",
    options=EViTOptions,
)
def evit(_: EViTOptions) -> MethodSpec:
    """The fused token is the attention-weighted sum, not divided by the attention's sum, as in the official code."""
    return MethodSpec(
        "evit",
        planner=Select(Score.CLS, Leftover.FUSE, order="score"),
        mode=ReduceMode.SUM,
        weight=Weight.KEPT_ONE,
        default_layers=(3, 6, 9),
        default_amount="0.7",
    )
