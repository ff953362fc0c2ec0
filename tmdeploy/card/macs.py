"""Multiply-accumulates of a ViT with a schedule, by the formula that reproduces the published "GFLOPs".

stem + sum over blocks (4 Na C^2 + 2 Na^2 C + 2 Nm C H) + C classes, with Na tokens entering a block's attention, Nm its
MLP and H the MLP's hidden width (docs/benchmarks.md). The planners' and reduces' own arithmetic is counted apart: it is
no part of the published numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tmdeploy.card.arch import VitConfig
from tmdeploy.card.schedule import Step
from tmdeploy.methods.spec import Match, MethodSpec, Metric, Score, Select


@dataclass(frozen=True)
class MacCount:
    """MACs of one image.

    Attributes:
        stem: Patch embedding, all scales.
        blocks: Each block.
        head: Classifier heads.
        reduction: Similarities of the planners and sums of the reduces; not in `total`. None: the method computes a
            signal of its own, by what nobody counted.
    """

    stem: int
    blocks: tuple[int, ...]
    head: int
    reduction: int | None

    @property
    def total(self) -> int:
        """What papers report."""
        return self.stem + sum(self.blocks) + self.head


def model_macs(config: VitConfig, steps: Sequence[Step] = (), spec: MethodSpec | None = None) -> MacCount:
    """Count the MACs of one image.

    Args:
        config: Architecture.
        steps: Reduction steps with their token counts; none for the plain model.
        spec: The method, to count the reduction's own arithmetic.
    """
    width = config.width
    by_block = {step.block: step for step in steps}
    tokens = config.tokens
    blocks: list[int] = []
    reduction: int | None = None if spec is not None and spec.custom_signals else 0
    for block in range(config.depth):
        step = by_block.get(block)
        after = step.tokens_out if step is not None else tokens
        attention = 4 * tokens * width**2 + 2 * tokens**2 * width
        blocks.append(attention + 2 * after * width * config.mlp_width)
        if step is not None and spec is not None and reduction is not None:
            reduction += _reduction_macs(config, spec, step)
        tokens = after
    heads = 2 if config.distilled else 1
    return MacCount(_stem_macs(config), tuple(blocks), heads * width * config.num_classes, reduction)


def _stem_macs(config: VitConfig) -> int:
    height, width = config.image_size
    grid = config.grid[0] * config.grid[1]
    total = 0
    for patch in (config.patch_size, *config.scales):
        total += (height // patch) * (width // patch) * config.width * config.in_channels * patch**2
    if config.scales and config.fusion == "concat":
        total += grid * (1 + len(config.scales)) * config.width**2
    return total


def _reduction_macs(config: VitConfig, spec: MethodSpec, step: Step) -> int:
    patches, removed = step.tokens_in - config.num_prefix, step.tokens_in - step.tokens_out
    moved = removed * config.width
    planner = spec.planner
    if isinstance(planner, Match):
        half = patches // 2
        return half * (patches - half) * (config.width // config.heads) + moved
    if isinstance(planner, Select):
        rows = patches if planner.score is Score.RECEIVED else 1  # of the attention matrix; one norm of the keys too
        score = rows * step.tokens_in * config.width
        if planner.metric is None:
            return score + moved
        kept = step.tokens_out - config.num_prefix
        depth = config.width if planner.metric is Metric.TOKENS else config.width // config.heads
        return score + (patches - kept) * kept * depth + moved
    return 0
