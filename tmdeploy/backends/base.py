"""The one protocol that validate, bench, infer and visualize see, and the registry that finds a backend by suffix."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.metadata import ArtifactMetadata, Preprocessing

Array = NDArray[np.float32]
IntArray = NDArray[np.int32]


@dataclass(frozen=True)
class StepTrace:
    """What one reduction step decided, and on what.

    Attributes:
        block: 0-based block index.
        op: `TokenMatch` or `TokenSelect`.
        map: int32 [B, N], output slot of every token; -1 = dropped.
        index: int32 [B, M], anchor token of every slot; -1 = none.
        signal: f32 [B, N, C] metric (match) or [B, N] score (select).
        metric: f32 [B, N, C], for a selection that merges its leftovers into the nearest kept token.
        x_in: f32 [B, N, D], tokens before the step; only when the trace was asked for tensors.
        size_in: f32 [B, N]; None before the first step or for methods without sizes.
        x_out: f32 [B, M, D]; only when the trace was asked for tensors.
        size_out: f32 [B, M]; None for methods without sizes.
    """

    block: int
    op: str
    map: IntArray
    index: IntArray
    signal: Array
    metric: Array | None = None
    x_in: Array | None = None
    size_in: Array | None = None
    x_out: Array | None = None
    size_out: Array | None = None


@dataclass(frozen=True)
class Trace:
    """One forward pass with its decisions: logits f32 [B, classes] and the steps in block order."""

    logits: Array
    steps: tuple[StepTrace, ...]


@runtime_checkable
class Runner(Protocol):
    """A loaded model.

    `images` is f32 [B, 3, H, W], normalised, or uint8 [B, H, W, 3] when the metadata says that preprocessing is in
    the graph. `schedule` overrides the file's default amounts (r or keep, one a step) where the file allows it.
    """

    name: str
    path: Path
    metadata: ArtifactMetadata | None
    preprocessing: Preprocessing
    pixels_in: bool
    class_names: tuple[str, ...]
    load_seconds: float

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes] (features [B, width] for a checkpoint without a head)."""
        ...

    def trace(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, tensors: bool = False
    ) -> Trace:
        """Logits and plans; with `tensors`, the tokens before and after every step too."""
        ...

    def describe(self) -> dict[str, str]:
        """What runs: backend, version, provider, threads, lowering. For reports."""
        ...

    def close(self) -> None:
        """Free the session; the runner cannot be used afterwards."""
        ...


@dataclass(frozen=True)
class BackendInfo:
    """A registered backend: its module has `open_runner(path, *, threads=None, **options) -> Runner`."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    purpose: str


# One row a backend; a newcomer adds a file and a row.
BACKENDS: tuple[BackendInfo, ...] = (
    BackendInfo("onnxruntime", (".onnx",), "tmdeploy.backends.onnxruntime", "ONNX Runtime on the CPU, the default"),
    BackendInfo("pytorch", (".pt", ".pth", ".safetensors"), "tmdeploy.backends.pytorch", "PyTorch, the reference"),
    BackendInfo("tensorrt", (".plan", ".engine"), "tmdeploy.backends.tensorrt", "TensorRT and TensorRT-RTX engines"),
)


def backend_for(path: Path) -> BackendInfo:
    """The backend that reads this file, by suffix.

    Raises:
        UsageError: No backend reads this suffix.
    """
    for backend in BACKENDS:
        if path.suffix.lower() in backend.suffixes:
            return backend
    known = ", ".join(suffix for backend in BACKENDS for suffix in backend.suffixes)
    raise UsageError(f"{path}: no backend reads '{path.suffix}' files", remedy=f"Give one of: {known}")


def open_runner(path: Path, *, threads: int | None = None, **options: object) -> Runner:
    """Load a model with the backend of its suffix.

    Args:
        path: `.onnx`, `.pt`, `.pth`, `.safetensors`, `.plan` or `.engine`.
        threads: Intra-op threads; None leaves the backend's default.
        options: Passed to the backend, such as `trust_checkpoint`.

    Raises:
        ArtifactError: The file is missing, truncated or foreign.
        EnvironmentMissing: The backend's package is not installed.
    """
    backend = backend_for(path)
    if not path.is_file():
        raise ArtifactError("no such file", path=path, remedy="Check the path")
    runner = importlib.import_module(backend.module).open_runner(path, threads=threads, **options)
    assert isinstance(runner, Runner)  # noqa: S101 - the protocol of this module
    return runner
