"""MSTM: split tokens into crucial and non-crucial by importance, merge the others into their nearest crucial one.

A reconstruction: the paper's body was not available, only its abstract. Every unknown is an option; docs/methods.md
says which. The multi-scale stem belongs to the architecture (`ms_embed.*`, `ms_fuse.*` in the checkpoint), not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tmdeploy.methods.registry import method
from tmdeploy.methods.spec import POOL_HELP, SCORE_HELP, Leftover, MethodSpec, Metric, Score, Select, Weight


@dataclass(frozen=True)
class MSTMOptions:
    """What the abstract leaves open, with the defaults of the closest published relatives (EViT, TPS, DiffRate)."""

    score: Literal["cls", "cls_value", "ats", "received", "key_norm"] = field(
        default="cls", metadata={"help": f"{SCORE_HELP}; cls_value and ats: times the values' norm"}
    )
    metric: Literal["x", "keys"] = field(
        default="x", metadata={"help": "vectors whose cosine similarity finds the nearest crucial token"}
    )
    weight: Literal["size", "mean", "score", "exp_sim"] = field(
        default="size", metadata={"help": "weight of a token in the merged mean"}
    )
    prop_attn: bool = field(default=False, metadata={"help": "add log(size) to the attention logits"})
    pool: Literal["size", "mean"] = field(default="size", metadata={"help": POOL_HELP})


@method(
    "mstm",
    summary="merge non-crucial tokens into the most similar crucial one",
    source="Bian et al., Multi-Scale And Token Mergence, 2023, arXiv 2306.04897 (reconstruction from the abstract)",
    options=MSTMOptions,
)
def mstm(options: MSTMOptions) -> MethodSpec:
    """Crucial tokens stay in index order; the class token is neither source nor destination."""
    return MethodSpec(
        "mstm",
        planner=Select(Score(options.score), Leftover.NEAREST, order="index", metric=Metric(options.metric)),
        weight=Weight(options.weight),
        prop_attn=options.prop_attn,
        pool_by_size=options.pool == "size",
        default_layers=(3, 6, 9),
        default_amount="0.7",
    )
