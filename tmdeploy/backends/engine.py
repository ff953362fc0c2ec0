"""What a compiled engine can do beside `Runner`, for bench, which knows no runtime by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tmdeploy.tensorrt.run.memory import EngineMemory


class EngineTimer(Protocol):
    """Calls of an engine on one batch, timed by the GPU's own clock.

    Attributes:
        queued: Calls in one `queue`.
    """

    queued: int

    def call(self) -> object:
        """One call, until it is done."""
        ...

    def queue(self) -> object:
        """Many calls in a row, until all are done."""
        ...

    def read(self) -> Mapping[str, Sequence[float]]:
        """Times of the last `call`, or of those of the last `queue`: seconds by name, `compute` among them."""
        ...

    def close(self) -> None:
        """Free what it holds on the GPU."""
        ...


class Engine(Protocol):
    """A model that was compiled for one GPU, with a batch size, a precision and perhaps a schedule built in.

    Attributes:
        build: What engines have in common that differ in nothing but the model, by name: their precision, for one.
        batches: Sizes that it is tuned for.
        amounts: Its schedule where nothing else is asked for; None where it is the model's.
    """

    @property
    def build(self) -> Mapping[str, str]: ...  # noqa: D102 - as above
    @property
    def batches(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def amounts(self) -> tuple[int, ...] | None: ...  # noqa: D102

    def timer(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, graph: bool, transfers: bool
    ) -> EngineTimer:
        """Something that times calls on these images.

        Args:
            images: One batch, of a size that `Runner.takes_batch`.
            schedule: As for `Runner.infer`.
            graph: Launch a CUDA graph.
            transfers: Copy images and logits in each call; else they stay on the device.

        Raises:
            DataError: Images of another shape or type than the engine takes.
            UsageError: A batch or a schedule that it was not built for.
        """
        ...

    def memory(self) -> EngineMemory:
        """What it says it needs on the GPU."""
        ...
