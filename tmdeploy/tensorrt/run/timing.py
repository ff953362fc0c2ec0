"""Times of an engine by CUDA events: copies, compute and enqueueing apart, one call at a time and queued.

The boundaries are trtexec's (NVIDIA/TensorRT, samples/common/sampleInference.cpp and sampleReporting.cpp): events on
both sides of each copy and of the engine's work, the host's clock around the enqueueing alone. Unlike trtexec, copies
and compute share one stream, so that a queued call's copies do not overlap another call's compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.tensorrt.run.session import Session, Staged

QUEUED = 20  # calls in a row
_IN_FLIGHT = 2  # calls in flight at a time, trtexec's number


class EngineTimer:
    """Calls of an engine on one batch, with an event at every boundary.

    The events are not part of a captured CUDA graph: they are recorded around its launch.

    Args:
        session: The engine; timers may share it.
        images: One batch, which a profile holds.
        schedule: Values of the shape input; None if there is none.
        graph: Launch a CUDA graph (from the third call on: the first runs kernels, the second captures).
        transfers: Copy images to the device and logits back; else everything stays on the device.
    """

    queued = QUEUED

    def __init__(
        self,
        session: Session,
        images: NDArray[np.generic],
        schedule: Sequence[int] | None,
        *,
        graph: bool,
        transfers: bool,
    ) -> None:
        self._session, self._images, self._schedule = session, images, schedule
        self._graph, self._transfers = graph, transfers
        self._marks = [_Marks(session) for _ in range(QUEUED)]
        self._enqueue_s: list[float] = []
        self._staged: Staged | None = None

    def call(self) -> dict[str, NDArray[Any]]:
        """One complete call. With transfers: numpy in, numpy out. Without: no outputs."""
        session = self._session
        self._enqueue_s = []
        if self._transfers:
            staged = self._staged = session.stage(self._images, self._schedule)
            self._put(self._marks[0], staged, shapes=True)
        else:
            staged = self._in_place()
            self._put(self._marks[0], staged)
        session.synchronize()
        return session.results(staged) if self._transfers else {}

    def queue(self) -> None:
        """Many calls in a row with the host one ahead, until all are complete; from pinned memory, not from numpy."""
        staged = self._in_place()
        self._enqueue_s = []
        for number, marks in enumerate(self._marks):
            if number >= _IN_FLIGHT:  # else the launch queue fills up, and enqueueing would wait for the GPU
                self._marks[number - _IN_FLIGHT].wait()
            self._put(marks, staged)
        self._session.synchronize()

    def read(self) -> dict[str, list[float]]:
        """Times of the last `call`, or of all calls of the last `queue` but the first (the GPU was idle), in seconds.

        `compute`: the engine's work on the GPU; `enqueue`: the host's time to put it there. With transfers also `h2d`
        and `d2h`, the copies. `latency`: copies and compute.
        """
        calls = slice(1, QUEUED) if len(self._enqueue_s) > 1 else slice(1)
        marks = self._marks[calls]
        parts = ("h2d", "compute", "d2h") if self._transfers else ("compute",)
        found = {part: [one.seconds(part) for one in marks] for part in parts}
        latency = [sum(times) for times in zip(*found.values(), strict=True)]
        return {**found, "latency": latency, "enqueue": self._enqueue_s[calls]}

    def close(self) -> None:
        """Free the events."""
        for marks in self._marks:
            marks.free()
        self._marks = []

    def _put(self, marks: _Marks, staged: Staged, *, shapes: bool = False) -> None:
        session = self._session
        if self._transfers:
            marks.record("h2d_start")
            session.upload(staged)
            marks.record("h2d_end")
        if shapes:
            session.set_shapes(staged)
        marks.record("compute_start")
        before = perf_counter()
        session.launch(staged, graph=self._graph)
        self._enqueue_s.append(perf_counter() - before)
        marks.record("compute_end")
        if self._transfers:
            marks.record("d2h_start")
            session.download()
            marks.record("d2h_end")

    def _in_place(self) -> Staged:
        """Put the batch into the buffers and on the device, since timers share them."""
        session = self._session
        if self._staged is None or session.staged is not self._staged:
            self._staged = session.stage(self._images, self._schedule)
            session.upload(self._staged)
            session.set_shapes(self._staged)
            session.synchronize()
        return self._staged


class _Marks:
    """The events of one call."""

    _NAMES = ("h2d_start", "h2d_end", "compute_start", "compute_end", "d2h_start", "d2h_end")

    def __init__(self, session: Session) -> None:
        self._device, self._stream = session.device, session.stream
        self._events = {name: self._device.event() for name in self._NAMES}

    def record(self, name: str) -> None:
        self._device.call("cudaEventRecord", self._events[name], self._stream)

    def seconds(self, part: str) -> float:
        return self._device.seconds_between(self._events[f"{part}_start"], self._events[f"{part}_end"])

    def wait(self) -> None:
        """Wait until the call's compute is complete."""
        self._device.call("cudaEventSynchronize", self._events["compute_end"])

    def free(self) -> None:
        for event in self._events.values():
            self._device.call("cudaEventDestroy", event)
