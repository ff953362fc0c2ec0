"""GPU memory of an engine, as TensorRT states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineMemory:
    """Sizes in bytes, as TensorRT states them; none of them is measured.

    Attributes:
        weights: All weights in the engine; None if TensorRT does not say (10.13).
        activations: What a context needs for the largest profile, without weights, inputs and outputs.
        profiles: The same for each profile.
        buffers: tmdeploy's own buffers for inputs and outputs, for the largest batch.
        streamable: Weights that can stay on the host and be streamed; 0 unless built with --weight-streaming.
        streaming: Device memory to stream them through.
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
        engine: The deserialised engine.
        profiles: Number of profiles.
        buffers: Bytes allocated for inputs and outputs.
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
