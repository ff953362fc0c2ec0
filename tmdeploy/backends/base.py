"""The one protocol that validate, bench, infer and visualize see, and the registry that finds a backend by suffix."""

from __future__ import annotations

import importlib
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.engine import Engine
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.card.card import ModelCard
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import ArtifactError, DataError, EnvironmentMissing, UsageError
from tmdeploy.extensions import Table
from tmdeploy.models.content import CHECKPOINT_SUFFIXES
from tmdeploy.models.formats import format_of

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[np.float32]
IntArray = NDArray[np.int32]
_MANY_THREADS = 64  # on any machine


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


class Part(Protocol):
    """A piece of an exported graph. `inputs`: what can be fed, with its type."""

    inputs: dict[str, np.dtype[Any]]

    def run(self, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        ...


class OpensParts(Protocol):
    """Runs pieces of the graph it was given, as level 1 of a validation needs it."""

    def open_part(self, model: bytes) -> Part:
        """A piece of the graph, serialised, run as the whole is."""
        ...


@runtime_checkable
class Runner(Protocol):
    """A loaded model, which is closed at the end of a `with`. Backends derive from this class.

    `images` is f32 [B, 3, H, W], normalised, or uint8 [B, H, W, 3] when the metadata says that preprocessing is in
    the graph. `schedule` overrides the file's default amounts (r or keep, one per step) where the file allows it.

    Attributes:
        name: In tables and messages.
        path: Path of the file.
        facts: What computes it, and how; known once it is open, and still when it is closed.
        metadata: Metadata of an exported file; None for checkpoints and foreign files.
        preprocessing: How pixels become its input.
        pixels_in: Whether it takes uint8 pixels.
        class_names: One per class, or none.
        load_seconds: Time to open it.
        notes: What was assumed to open it, a sentence each.
        plans_withheld: Why `trace` cannot be had, as half a sentence; None where it can.
        parts: Runs pieces of its graph; None for what is no exported graph.
        engine: Times itself, and says what it was built for; None for what is no compiled engine.
        compute_seconds: Time of the last `infer` on a GPU, the model alone without copies, if it is measured.
    """

    name: str
    path: Path
    facts: RunnerFacts
    metadata: ArtifactMetadata | None
    preprocessing: Preprocessing
    pixels_in: bool
    class_names: tuple[str, ...]
    load_seconds: float
    notes: tuple[str, ...] = ()
    plans_withheld: str | None = None
    compute_seconds: float | None = None

    @property
    def card(self) -> ModelCard | None:
        """What the model is; None for a file of other origin."""
        return None if self.metadata is None else self.metadata.card

    @property
    def parts(self) -> OpensParts | None:
        """None, unless a backend has them."""
        return None

    @property
    def engine(self) -> Engine | None:
        """None, unless it is one."""
        return None

    def takes_batch(self, size: int) -> bool:
        """Whether `infer` computes so many images in one call, no more and no fewer."""
        return size == 1 or self.metadata is None or self.metadata.dynamic_batch

    @abstractmethod
    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes] (features [B, width] for a checkpoint without a head)."""

    @abstractmethod
    def trace(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, tensors: bool = False
    ) -> Trace:
        """Logits and plans; with `tensors`, the tokens before and after every step too.

        Raises:
            ArtifactError: They are withheld (`plans_withheld`), or a file of other origin has none that could be found.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the session; the runner computes nothing afterwards. Closing twice does no harm."""

    def __enter__(self) -> Self:
        """The runner."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, whatever happened."""
        self.close()


def check_not_empty(images: int, path: Path) -> None:
    """Refuse a batch without images: not every runtime computes one, and none did for every file.

    ONNX Runtime's MatMul does not broadcast to it, and up to 1.26 its Attention divides by it, which ends the process.

    Raises:
        DataError: There are none.
    """
    if images == 0:
        raise DataError("was given a batch without images", path=path, remedy="Give at least one")


@dataclass(frozen=True)
class BackendInfo:
    """A backend: its module has `open_runner(path, *, threads=None, **options) -> Runner`.

    It may have `load_runtime(path)`, too; see the function of that name here.

    Attributes:
        name: What the user calls it.
        suffixes: What it reads; the first backend that reads a suffix is the default for it.
        module: Where it is; imported when there is a file to open.
        purpose: In a few words.
        precisions: What may follow its name, as in `openvino:bf16`; the first is the default.
        reads_checkpoints: It reads every checkpoint format (`models.formats`), whatever `suffixes` says.
        takes_model: `open_runner` takes `model`, a serialised ONNX model to run in place of the file's, and `name` for
            it; bench makes twins for such a backend.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    purpose: str
    precisions: tuple[str, ...] = ()
    reads_checkpoints: bool = False
    takes_model: bool = False

    def reads(self, path: Path) -> bool:
        """Whether it reads files of this suffix."""
        return path.suffix.lower() in self.suffixes or (self.reads_checkpoints and format_of(path) is not None)


def _onnx(name: str, module: str, purpose: str, precisions: tuple[str, ...] = ()) -> BackendInfo:
    return BackendInfo(name, (".onnx",), module, purpose, precisions, takes_model=True)


# One row per backend.
_OURS: tuple[BackendInfo, ...] = (
    _onnx("onnxruntime", "tmdeploy.backends.onnxruntime.runner", "ONNX Runtime on the CPU"),
    _onnx("onnxruntime-cuda", "tmdeploy.backends.onnxruntime.cuda", "ONNX Runtime, CUDA provider"),
    _onnx("onnxruntime-tensorrt", "tmdeploy.backends.onnxruntime.tensorrt", "ONNX Runtime, TensorRT provider"),
    _onnx("openvino", "tmdeploy.backends.openvino", "OpenVINO on the CPU", ("f32", "bf16")),
    BackendInfo(
        "pytorch",
        CHECKPOINT_SUFFIXES,
        "tmdeploy.backends.pytorch",
        "PyTorch, the reference",
        reads_checkpoints=True,
    ),
    BackendInfo("tensorrt", (".plan", ".engine"), "tmdeploy.backends.tensorrt", "TensorRT and TensorRT-RTX engines"),
)
BACKENDS = Table("tmdeploy.backends", BackendInfo, lambda: _OURS)


def backend_for(path: Path, choice: str | None = None) -> BackendInfo:
    """The backend that reads this file, by suffix or by name.

    Args:
        path: The file; it need not exist.
        choice: A backend's name, perhaps with a precision (`openvino:bf16`); None takes the suffix's default.

    Raises:
        UsageError: No backend reads this suffix, or the chosen one does not, or there is none of that name.
    """
    if choice is not None:
        backend = _chosen(choice)
        if not backend.reads(path):
            raise UsageError(f"{path}: {backend.name} reads {', '.join(backend.suffixes)} only")
        return backend
    by_suffix = BACKENDS.find(lambda one: path.suffix.lower() in one.suffixes) or BACKENDS.find(
        lambda one: one.reads(path)
    )
    if by_suffix is not None:
        return by_suffix
    known = ", ".join(dict.fromkeys(suffix for backend in BACKENDS for suffix in backend.suffixes))
    raise UsageError(f"{path}: no backend reads '{path.suffix}' files", remedy=f"Give one of: {known}")


def open_runner(path: Path, *, threads: int | None = None, backend: str | None = None, **options: object) -> Runner:
    """Load a model with the backend of its suffix, or another one that reads it.

    Args:
        path: An `.onnx`, a checkpoint (`.pt`, `.safetensors`, ...), a `.plan` or `.engine`.
        threads: Intra-op threads; None leaves the backend's default.
        backend: A backend's name, perhaps with a precision (`openvino:bf16`); None takes the suffix's default.
        options: Passed to the backend, such as `trust_checkpoint`.

    Raises:
        ArtifactError: The file is missing, truncated or foreign.
        EnvironmentMissing: The backend's package is not installed.
        UsageError: No such backend or precision, or more threads than any machine wants.
    """
    info = backend_for(path, backend)
    check_threads(threads)
    if not path.is_file():
        raise ArtifactError("no such file", path=path, remedy="Check the path")
    precision = "" if backend is None else backend.partition(":")[2]
    if precision:
        options["precision"] = precision
    runner = importlib.import_module(info.module).open_runner(path, threads=threads, **options)
    if not isinstance(runner, Runner):
        raise EnvironmentMissing(
            f"backend {info.name} opens files as {type(runner).__name__}, which is no tmdeploy.backends.Runner",
            remedy="Report it to whoever made that backend",
        )
    return runner


def load_runtime(path: Path, *, backend: str | None = None) -> Callable[[], int] | None:
    """Load what a model runs on but not the model, so that its memory can be told from its runtime's.

    Args:
        path: The model.
        backend: As for `open_runner`.

    Returns:
        Counts the free bytes of the GPU that an engine runs on; None for anything else.
    """
    load = getattr(importlib.import_module(backend_for(path, backend).module), "load_runtime", None)
    return None if load is None else load(path)


def check_threads(threads: int | None) -> None:
    """Refuse what libraries answer with a crash.

    Raises:
        UsageError: Fewer than one, or far more than there are cores.
    """
    most = max(_MANY_THREADS, os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise UsageError(
            f"--threads {threads}: from 1 to {most}", remedy=f"This machine has {os.cpu_count()} cores: more are slower"
        )


def _chosen(choice: str) -> BackendInfo:
    name, _, precision = choice.partition(":")
    backend = BACKENDS.get(name)
    if backend is None:
        raise UsageError(f"no backend '{name}'", remedy=f"Use one of: {', '.join(one.name for one in BACKENDS)}")
    if precision and precision not in backend.precisions:
        known = ", ".join(f"{name}:{one}" for one in backend.precisions)
        remedy = f"Use {known}" if known else f"It runs a file in the precision it has: use {name}"
        raise UsageError(f"no precision '{precision}' of {name}", remedy=remedy)
    return backend
