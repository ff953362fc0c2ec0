"""What a reduction method is made of: a planner, a reduce, and where they go. Data only; `patching` carries it out."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


class Metric(enum.Enum):
    """The vectors whose similarity decides merges, [B, N, C]."""

    KEYS = "keys"  # attention keys, mean over heads (ToMe)
    TOKENS = "x"  # the tokens themselves, after attention


class Score(enum.Enum):
    """The importance of a token, [B, N]: from the class token's attention row a_h over heads h, or without one."""

    CLS = "cls"  # mean_h a_h (EViT)
    CLS_VALUE = "cls_value"  # mean_h a_h * ||v_h||, values per head
    ATS = "ats"  # (sum_h a_h) * ||v||, values of all heads concatenated
    RECEIVED = "received"  # attention received: mean over heads and the patch tokens' rows (LTP)
    KEY_NORM = "key_norm"  # mean_h ||k_h||, over its sum over all tokens

    @property
    def needs_class_token(self) -> bool:
        """Whether it reads the class token's attention row."""
        return self in {Score.CLS, Score.CLS_VALUE, Score.ATS}


@dataclass(frozen=True)
class CustomSignal:
    """A score [B, N] or metric [B, N, C] that a method computes itself.

    Attributes:
        compute: `package.module:name`, imported when a model is patched. A function of the tokens after attention and
            of the attention (`patching.signals.Compute`) that returns it; or, with `weights`, what makes such an
            nn.Module for `patching.parts.Sizes`.
        weights: Where that module stands in the model, and so how its weights are named: `score_predictor.{step}`,
            `blocks.{block}.metric`; {step} counts the steps from 0, {block} is the block's number. None: it has none.
        needs_class_token: Whether it reads the class token's row of the attention.
    """

    compute: str
    weights: str | None = None
    needs_class_token: bool = False

    def name_of(self, step: int, block: int) -> str:
        """Where the module of one step stands."""
        return (self.weights or "").format(step=step, block=block)


# What the options `score` and `pool` of several methods say of themselves.
SCORE_HELP = (
    "importance: attention of the class token, or, for models without one, attention received from the patch tokens, "
    "or the keys' norms"
)
POOL_HELP = "models that pool the mean: weigh tokens by size (ToMe for MAE), or plainly (ToMe's patch for timm)"


class Weight(enum.Enum):
    """The weight of a token in the reduce, [B, N]."""

    SIZE = "size"  # patches the token stands for
    MEAN = "mean"  # 1
    SCORE = "score"  # its importance
    EXP_SIM = "exp_sim"  # exp(similarity to its destination); the anchor itself exp(1) (TPS)
    KEPT_ONE = "kept_one"  # 1 for a kept token, its importance for one that is fused (EViT)


class Leftover(enum.Enum):
    """What happens to tokens that a selection does not keep."""

    DROP = "drop"
    FUSE = "fuse"  # all into one extra slot, last
    NEAREST = "nearest"  # each into the most similar kept patch token


class ReduceMode(enum.Enum):
    """How TokenReduce combines the tokens of a slot; the values are the op's attribute."""

    WMEAN = "wmean"
    SUM = "sum"
    ANCHOR = "anchor"


@dataclass(frozen=True)
class Match:
    """Plan by TokenMatch: r tokens merge into the most similar token of the other half."""

    metric: Metric | CustomSignal


@dataclass(frozen=True)
class Select:
    """Plan by TokenSelect: the highest scores are kept."""

    score: Score | CustomSignal
    leftover: Leftover
    order: Literal["score", "index"]
    metric: Metric | CustomSignal | None = None


@dataclass(frozen=True)
class MethodSpec:
    """One reduction method with its options resolved.

    Attributes:
        name: Name for `--method`.
        planner: None means that nothing is ever reduced.
        mode: How the reduce combines tokens.
        weight: Its weights; None where the mode needs none.
        prop_attn: Add log(size) to the attention logits (ToMe, section 3.3).
        pool_by_size: Mean pooling weighs tokens by size, where sizes are tracked.
        default_layers: Blocks with a step; None means every block.
        default_amount: What `--r` or `--keep` is when not given.
        options: The named options that made this spec, for metadata.
    """

    name: str
    planner: Match | Select | None
    mode: ReduceMode = ReduceMode.WMEAN
    weight: Weight | None = None
    prop_attn: bool = False
    pool_by_size: bool = True
    default_layers: tuple[int, ...] | None = None
    default_amount: str = "0"
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def schedule_kind(self) -> Literal["r", "keep"] | None:
        """What the schedule counts: tokens removed (match), tokens kept (select), nothing."""
        if self.planner is None:
            return None
        return "r" if isinstance(self.planner, Match) else "keep"

    @property
    def custom_signals(self) -> tuple[CustomSignal, ...]:
        """The signals that it computes itself."""
        asked = (getattr(self.planner, "metric", None), getattr(self.planner, "score", None))
        return tuple(signal for signal in asked if isinstance(signal, CustomSignal))

    def owns(self, weight: str) -> bool:
        """Whether a weight, by its name in the model, is of a part that the method adds."""
        patterns = (
            re.escape(signal.weights).replace(r"\{step\}", r"\d+").replace(r"\{block\}", r"\d+")
            for signal in self.custom_signals
            if signal.weights is not None
        )
        return any(re.match(rf"{pattern}\.", weight) for pattern in patterns)

    @property
    def fuses(self) -> bool:
        """Whether a step leaves one fused token behind."""
        return isinstance(self.planner, Select) and self.planner.leftover is Leftover.FUSE

    @property
    def tracks_size(self) -> bool:
        """Whether sizes travel from block to block."""
        return self.weight is Weight.SIZE or self.prop_attn
