"""Which kernels an engine consists of, and which of them are the merge step: read from the builder's verbose log.

TensorRT-RTX's engine inspector needs a GPU; the log of a build with detailed profiling verbosity names every kernel
and the ONNX nodes it came from, and needs none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

_KERNEL = re.compile(r"^Name: (?P<name>[^,]+), LayerType: (?P<type>[^,]+),", re.MULTILINE)
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_INPUTS = re.compile(r"Inputs: \[(.*?)\], (?:Constants|Outputs): ")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_STEP = re.compile(r"^(block\d+)/(TokenMatch|TokenSelect|TokenReduce)")
_HOST = {"shape_call"}  # arithmetic on shapes, launches nothing
_PRODUCTS = {"gemm", "correlation", "runtime_fusion"}  # the last: a product with what surrounds it
_QUANTIZED = {"Int8", "FP8"}


class Kernel(BaseModel):
    """One launch.

    Attributes:
        name: TensorRT's.
        type: `gemm`, `kgen` (generated), `runtime_fusion`, ...
        nodes: Names of the ONNX nodes in it.
        reads: TensorRT's names of its inputs' data types, each once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: str
    nodes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether it has a matrix product or convolution of int8 or fp8."""
        return (self.type in _PRODUCTS or self.fused_attention) and not _QUANTIZED.isdisjoint(self.reads)

    @property
    def fused_attention(self) -> bool:
        """Whether it is softmax and both products of attention."""
        return "_mha_" in self.name

    @property
    def step_nodes(self) -> tuple[str, ...]:
        """Those that belong to a reduction step."""
        return tuple(node for node in self.nodes if _STEP.match(node))

    @property
    def launches(self) -> bool:
        """Whether it runs on the GPU."""
        return self.type not in _HOST


class StepKernels(BaseModel):
    """Kernels of one reduction step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: int
    only: int = Field(description="kernels with nodes of the step alone: what the step adds")
    shared: int = Field(description="kernels that also hold nodes of the model")


class KernelCount(BaseModel):
    """What an engine launches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: int
    types: dict[str, int]
    fused_attention: int = Field(default=0, description="attentions that are one kernel, softmax and both products")
    quantized: int = Field(default=0, description="kernels with a matrix product or convolution of int8 or fp8")
    steps: tuple[StepKernels, ...] = ()


def read_kernels(messages: Iterable[str]) -> tuple[Kernel, ...]:
    """Kernels in the order they run, from a builder's verbose messages; empty if they list none."""
    found: list[Kernel] = []
    for message in messages:
        for line in message.splitlines():
            match = _KERNEL.match(line)
            if match:
                _, _, metadata = line.rpartition("Metadata:")
                nodes = tuple(dict.fromkeys(_NODE.findall(metadata)))
                inputs = _INPUTS.search(line)
                reads = tuple(dict.fromkeys(_DATATYPE.findall(inputs[1]))) if inputs else ()
                found.append(Kernel(name=match["name"].strip(), type=match["type"].strip(), nodes=nodes, reads=reads))
    return tuple(found)


def count_kernels(kernels: Iterable[Kernel]) -> KernelCount:
    """Totals, and the share of every reduction step."""
    launched = [kernel for kernel in kernels if kernel.launches]
    only: Counter[int] = Counter()
    shared: Counter[int] = Counter()
    for kernel in launched:
        blocks = {int(node.partition("/")[0].removeprefix("block")) for node in kernel.step_nodes}
        for block in blocks:
            (only if len(kernel.step_nodes) == len(kernel.nodes) else shared)[block] += 1
    return KernelCount(
        total=len(launched),
        fused_attention=sum(kernel.fused_attention for kernel in launched),
        quantized=sum(kernel.quantized for kernel in launched),
        types=dict(Counter(kernel.type for kernel in launched).most_common()),
        steps=tuple(
            StepKernels(block=block, only=only[block], shared=shared[block]) for block in sorted({*only, *shared})
        ),
    )
