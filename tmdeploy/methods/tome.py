"""ToMe: merge the r most similar pairs of an alternating bipartite split, in every block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tmdeploy.methods.registry import method
from tmdeploy.methods.spec import POOL_HELP, Match, MethodSpec, Metric, Weight


@dataclass(frozen=True)
class ToMeOptions:
    """Options of ToMe."""

    prop_attn: bool = field(default=True, metadata={"help": "add log(size) to the attention logits; off for MAE"})
    weight: Literal["size", "mean"] = field(
        default="size", metadata={"help": "weigh merged tokens by size, or plainly: scatter_reduce(reduce='mean')"}
    )
    pool: Literal["size", "mean"] = field(default="size", metadata={"help": POOL_HELP})


@method(
    "tome",
    summary="merge the r most similar token pairs in every block",
    source="Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, arXiv 2210.09461",
    options=ToMeOptions,
)
def tome(options: ToMeOptions) -> MethodSpec:
    """Keys averaged over heads decide; destinations become size-weighted means (sections 3.1 to 3.3)."""
    return MethodSpec(
        "tome",
        planner=Match(Metric.KEYS),
        weight=Weight(options.weight),
        prop_attn=options.prop_attn,
        pool_by_size=options.pool == "size",
        default_amount="13",
    )
