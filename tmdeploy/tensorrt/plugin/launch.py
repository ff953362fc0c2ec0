"""Launch descriptions: which kernel a node runs, with which grid, shared memory and extra arguments.

TensorRT evaluates them whenever shapes are known, so they are expressions of dimensions (`tensorrt.plugin.ShapeExpr`).
They are written with +, -, *, the comparison `<` (1 or 0) and `cdiv`, `min`, `max` of `tensorrt.plugin`, the expression
always on the left. A kernel's extra arguments stand between its inputs and its outputs: what is given here of the
dimensions, then the op's attributes. The kernels are in `plugins/kernels/cuda/aot/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tmdeploy.errors import UnsupportedModel
from tmdeploy.ops.spec import ReduceAttributes

DTYPES = ("f32", "f16", "bf16")  # in the order of Dtype in plugins/kernels/common/op_params.h
_MODES = ReduceAttributes.choices("mode")
_FEATURES = (192, 384, 768, 1024)
_PACK_BYTES = 16
# A GPU runs a block with more shared memory only if it is asked to, which TensorRT does not promise to do.
_SHARED_LIMIT = 48 * 1024

Expression = Any  # tensorrt.plugin.ShapeExpr: typed nowhere
Attributes = dict[str, int]


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Attributes:
        entry: The kernel's name.
        grid: Blocks, in x.
        threads: Threads of a block.
        shared_bytes: Dynamic shared memory of a block.
        extras: The kernel's int32 arguments.
    """

    entry: str
    grid: Expression
    threads: int
    shared_bytes: Expression
    extras: tuple[Expression, ...]


@dataclass(frozen=True)
class Tensor:
    """What a launch description is made from: one input.

    Attributes:
        shape: Expressions of its dimensions.
        most: Largest extents, of the optimisation profile where a dimension is dynamic.
        dtype: One of `DTYPES`; None for the integers.
    """

    shape: tuple[Expression, ...]
    most: tuple[int, ...]
    dtype: str | None


def _constant(expression: Expression) -> int | None:
    return int(expression.constant_value()) if expression.is_constant else None


def _check_tokens(tensor: Tensor, limit: int) -> None:
    if tensor.most[1] > limit:
        raise UnsupportedModel(
            f"{tensor.most[1]} tokens are more than the {limit} that the TensorRT kernels take",
            remedy="Build for smaller images",
        )


def _data_type(tensor: Tensor) -> str:
    if tensor.dtype is None:
        raise UnsupportedModel("the TensorRT kernels take float32, float16 and bfloat16 data")
    return tensor.dtype


def _is_fast(metric: Tensor, channels: int, tokens: int) -> bool:
    return _constant(metric.shape[2]) == channels and metric.most[1] <= tokens


def match_launch(math: Any, layout: tuple[int, ...], inputs: tuple[Tensor, ...], attributes: Attributes) -> Launch:
    """Describe the launch for one node.

    Args:
        math: `tensorrt.plugin`, for `cdiv`, `min` and `max`.
        layout: Layout of the op's PTX.
        inputs: The node's inputs.
        attributes: The node's, as integers, in the op's order.

    Raises:
        UnsupportedModel: The kernels do not take these shapes.
    """
    threads, most_tokens, fast_channels, fast_tokens, tile, fast_tile, once, key_bytes, proposal_bytes = layout
    metric, slots = inputs
    batch, tokens, channels = metric.shape
    _check_tokens(metric, most_tokens)
    fast = _is_fast(metric, fast_channels, fast_tokens)
    first = attributes["num_prefix"] + attributes["num_prefix"] % 2
    proposals = math.cdiv(math.max(tokens - first, 0), 2)
    # the sort works on a power of two, less than twice the proposals
    keys = math.min(proposals * 2, most_tokens // 2)
    shared = keys * key_bytes + proposals * proposal_bytes + ((fast_tile if fast else tile) + once)
    return Launch(
        f"tmdeploy_match_{_data_type(metric)}{'_fast' if fast else ''}",
        math.max(batch, 1),  # a grid of 0 is an error
        threads,
        shared,
        (batch, tokens, channels, slots.shape[0], *attributes.values()),
    )


def select_launch(math: Any, layout: tuple[int, ...], inputs: tuple[Tensor, ...], attributes: Attributes) -> Launch:
    """Describe the launch for one TokenSelect node; see `match_launch`."""
    threads, most_tokens, fast_channels, fast_tokens, tile, fast_tile, once, key_bytes, token_bytes = layout
    score, slots = inputs[:2]
    batch, tokens = score.shape
    _check_tokens(score, most_tokens)
    third = inputs[2] if len(inputs) > 2 else None
    patches = math.max(tokens - attributes["num_prefix"], 0)
    front = math.min(patches * 2, most_tokens) * key_bytes
    entry = "tmdeploy_select_drop"
    extras: tuple[Expression, ...] = (batch, tokens)
    if third is not None and len(third.shape) == 3:
        fast = _is_fast(third, fast_channels, fast_tokens)
        entry = f"tmdeploy_select_nearest_{_data_type(third)}{'_fast' if fast else ''}"
        front = math.max(front, patches * token_bytes + (fast_tile if fast else tile))
        extras = (*extras, third.shape[2], slots.shape[0])
    elif third is not None:
        entry = "tmdeploy_select_fuse"
        extras = (*extras, slots.shape[0], third.shape[0])
    else:
        extras = (*extras, slots.shape[0])
    return Launch(
        entry,
        math.max(batch, 1),
        threads,
        front + patches * token_bytes + (once + 15),  # the front is rounded up to 16 bytes
        (*extras, DTYPES.index(_data_type(score)), *attributes.values()),
    )


def reduce_launch(math: Any, layout: tuple[int, ...], inputs: tuple[Tensor, ...], attributes: Attributes) -> Launch:
    """Describe the launch for one TokenReduce node; see `match_launch`."""
    threads, most_tokens, most_slots, once, token_bytes, slot_bytes = layout
    x, _, index = inputs[:3]
    batch, tokens, features = x.shape
    slots = index.shape[1]
    _check_tokens(x, most_tokens)
    width = _constant(features)
    pack = _PACK_BYTES // (4 if x.dtype == "f32" else 2)
    if _MODES[attributes["mode"]].startswith("mlerp"):
        variant = "_mlerp"
    elif width in _FEATURES:
        variant = f"_{width}"
    else:
        variant = "_wide" if width is not None and width % pack == 0 else ""
    # few slots a block where that is what fills the GPU: as slots_of_a_block in token_reduce.cu
    total = batch * slots
    few_tokens = tokens < 1025
    fewer = (total < 16 * 512) * (most_slots // 4) + (total < 8 * 256) * (most_slots // 8)
    block_slots = few_tokens * (fewer + most_slots // 2) * -1 + most_slots
    return Launch(
        f"tmdeploy_reduce_{_data_type(x)}{variant}{'_weighted' if len(inputs) > 3 else ''}",
        math.max(batch * math.cdiv(slots, block_slots), 1),
        threads,
        tokens * token_bytes + (once + most_slots * slot_bytes),
        (batch, tokens, slots, features, block_slots, *attributes.values()),
    )


LAUNCHES = {"match": match_launch, "select": select_launch, "reduce": reduce_launch}


def check_launch(launch: Launch, parameters: str, inputs: int, outputs: int, threads: int) -> None:
    """Hold a launch against the kernel it is for: a wrong argument list would make the GPU read anything.

    Raises:
        UnsupportedModel: They do not fit, or the kernel needs more shared memory than every GPU has.
    """
    expected = "p" * inputs + "i" * len(launch.extras) + "p" * outputs
    if parameters != expected or launch.threads != threads:
        raise UnsupportedModel(
            f"{launch.entry} takes {parameters} in {threads} threads, the launch has {expected} in {launch.threads}",
            remedy="Rebuild the PTX: python scripts/build_ptx.py",
        )
    shared = _constant(launch.shared_bytes)
    if shared is not None and shared > _SHARED_LIMIT:
        raise UnsupportedModel(f"{launch.entry} would need {shared} bytes of shared memory")
