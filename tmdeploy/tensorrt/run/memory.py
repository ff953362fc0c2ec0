"""What an engine says it needs of the GPU's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineMemory:
    """Sizes in bytes, as TensorRT states them; none of them is measured.

    Attributes:
        weights: In the engine, all of them; None where TensorRT does not say (10.13).
        activations: A context needs that much at the largest profile, without weights, inputs and outputs.
        profiles: The same, of each profile.
        buffers: Inputs and outputs on the device, for the largest batch; ours.
        streamable: Weights that can stay on the host and be streamed; 0 unless built with --weight-streaming.
        streaming: On the device, to stream them through.
    """

    weights: int | None
    activations: int
    profiles: tuple[int, ...]
    buffers: int
    streamable: int
    streaming: int


def engine_memory(module: Any, engine: Any, profiles: int, *, buffers: int = 0) -> EngineMemory:
    """Ask an engine.

    Args:
        module: The TensorRT.
        engine: Deserialised.
        profiles: How many it has.
        buffers: Bytes of inputs and outputs, where they are allocated.
    """
    weights = None
    if hasattr(engine, "get_engine_stat"):  # not in 10.13
        weights = int(engine.get_engine_stat(module.EngineStat.TOTAL_WEIGHTS_SIZE))
    return EngineMemory(
        weights=weights,
        activations=int(engine.device_memory_size_v2),
        profiles=tuple(int(engine.get_device_memory_size_for_profile_v2(number)) for number in range(profiles)),
        buffers=buffers,
        streamable=int(engine.streamable_weights_size),
        streaming=int(engine.weight_streaming_scratch_memory_size),
    )
