"""The number of kernels in an engine, and how many of them belong to reduction steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from tmdeploy.tensorrt.record.layers import Layer


class StepKernels(BaseModel):
    """Kernels of one reduction step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: int
    only: int = Field(description="kernels with nodes of the step alone: what the step adds")
    shared: int = Field(description="kernels that also hold nodes of the model")


class KernelCount(BaseModel):
    """Kernels that an engine launches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: int
    types: dict[str, int]
    fused_attention: int = Field(default=0, description="attentions that are one kernel, softmax and both products")
    quantized: int = Field(default=0, description="kernels with a matrix product or convolution of int8 or fp8")
    steps: tuple[StepKernels, ...] = ()


def count_kernels(layers: Iterable[Layer]) -> KernelCount:
    """Totals, and the share of every reduction step."""
    launched = [layer for layer in layers if layer.launches]
    only: Counter[int] = Counter()
    shared: Counter[int] = Counter()
    for layer in launched:
        blocks = {int(node.partition("/")[0].removeprefix("block")) for node in layer.step_nodes}
        for block in blocks:
            (only if len(layer.step_nodes) == len(layer.nodes) else shared)[block] += 1
    return KernelCount(
        total=len(launched),
        fused_attention=sum(layer.fused_attention for layer in launched),
        quantized=sum(layer.quantized for layer in launched),
        types=dict(Counter(layer.type for layer in launched).most_common()),
        steps=tuple(
            StepKernels(block=block, only=only[block], shared=shared[block]) for block in sorted({*only, *shared})
        ),
    )
