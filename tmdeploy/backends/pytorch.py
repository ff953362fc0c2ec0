"""PyTorch, the reference: a checkpoint, patched with its method, run eagerly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, IntArray, Runner, StepTrace, Trace, check_not_empty
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.card.card import ModelCard
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import EnvironmentMissing, UsageError
from tmdeploy.lazy import require

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tmdeploy.patching.step import StepTensors

_PRECISIONS = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16", "torch.float64": "fp64"}


class PytorchRunner(Runner):
    """A patched module behind the runner protocol; see `backends.base.Runner`.

    Attributes:
        preprocessing: From the card.
        class_names: From the card.
        load_seconds: Reading and building.
        compute_seconds: Time of the last `infer` on a GPU: the module alone, between CUDA events.
    """

    metadata: ArtifactMetadata | None = None

    def __init__(
        self,
        module: nn.Module,
        card: ModelCard,
        *,
        name: str,
        path: Path,
        threads: int | None = None,
        pixels_in: bool = False,
        device: str = "cpu",
        notes: tuple[str, ...] = (),
    ) -> None:
        self._torch: Any = require("torch", purpose="running a checkpoint")
        from tmdeploy.patching import reduction_of

        self.name, self.path = name, path
        self._card, self.preprocessing, self.class_names = card, card.preprocessing, card.class_names
        self.load_seconds = 0.0
        self.notes = notes
        self.pixels_in = pixels_in
        self._threads = threads
        self._module = module.eval().to(device)
        self._state = reduction_of(module)
        dtype = str(self._dtype())
        self.facts = RunnerFacts(
            backend="pytorch",
            version=str(self._torch.__version__),
            device=device,
            precision=_PRECISIONS.get(dtype, dtype),
            threads=threads or self._torch.get_num_threads(),
            method=card.reduction.method,
            in_reports={"mode": "eager, scaled_dot_product_attention"},
        )

    @property
    def card(self) -> ModelCard:
        """Of the checkpoint, with the method and schedule that it was patched with."""
        return self._card

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes]. Raises UsageError for a schedule of the wrong length."""
        with self._running(schedule):
            if self.facts.gpu is None:
                return _array(self._module(self._input(images)))
            return self._infer_on_gpu(images)

    def trace(
        self, images: NDArray[np.generic], schedule: Sequence[int] | None = None, *, tensors: bool = False
    ) -> Trace:
        """Logits and plans; with `tensors`, the tokens before and after every step too."""
        with self._running(schedule):
            self._state.record = True
            try:
                logits = self._module(self._input(images))
                steps = tuple(_step(step, tensors=tensors) for step in self._state.steps)
            finally:
                self._state.record = False
                self._state.begin()
        return Trace(_array(logits), steps)

    def close(self) -> None:
        """Drop the module."""
        vars(self).pop("_module", None)

    def _infer_on_gpu(self, images: NDArray[np.generic]) -> Array:
        cuda = self._torch.cuda
        with cuda.device(self.facts.device):  # whose stream the events go to
            start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            tensor = self._input(images)
            start.record()
            logits = self._module(tensor)
            end.record()
            array = _array(logits)  # waits
            self.compute_seconds = start.elapsed_time(end) * 1e-3
        return array

    def _input(self, images: NDArray[np.generic]) -> Tensor:
        check_not_empty(len(images), self.path)
        torch, device = self._torch, self.facts.device
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        if self.pixels_in:
            mean = torch.tensor(self.preprocessing.mean, device=device).view(1, 3, 1, 1)
            std = torch.tensor(self.preprocessing.std, device=device).view(1, 3, 1, 1)
            tensor = (tensor.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
        return tensor.to(self._dtype())  # type: ignore[no-any-return]

    def _dtype(self) -> Any:
        return next(self._module.parameters()).dtype

    def _running(self, schedule: Sequence[int] | None) -> _Running:
        return _Running(self, schedule)


class _Running:
    """Inference mode, the asked-for threads and schedule, and TF32 off on a GPU, for one call."""

    def __init__(self, runner: PytorchRunner, schedule: Sequence[int] | None) -> None:
        self._runner, self._schedule = runner, schedule
        self._inference = runner._torch.inference_mode()

    def __enter__(self) -> None:
        runner, torch = self._runner, self._runner._torch
        self._threads_before = torch.get_num_threads()
        amounts = runner.card.reduction.amounts if self._schedule is None else tuple(self._schedule)
        runner.card.steps(amounts)  # refuses what cannot be meant
        runner._state.set_schedule(amounts)
        if runner._threads is not None and runner._threads != self._threads_before:
            torch.set_num_threads(runner._threads)
        if runner.facts.gpu is not None:
            self._tf32_before = [backend.allow_tf32 for backend in _tf32_backends(torch)]
            for backend in _tf32_backends(torch):
                backend.allow_tf32 = False
        self._inference.__enter__()

    def __exit__(self, *_: object) -> None:
        self._inference.__exit__(None, None, None)
        if self._runner.facts.gpu is not None:
            for backend, before in zip(_tf32_backends(self._runner._torch), self._tf32_before, strict=True):
                backend.allow_tf32 = before
        if self._runner._threads is not None and self._runner._threads != self._threads_before:
            self._runner._torch.set_num_threads(self._threads_before)


def open_runner(
    path: Path,
    *,
    threads: int | None = None,
    recipe: Recipe | None = None,
    arch: str | None = None,
    num_heads: int | None = None,
    assume: Mapping[str, object] | Sequence[str] = (),
    image_size: int | None = None,
    ema: bool = False,
    ignore_extra: bool = False,
    trust_checkpoint: bool = False,
    pixels_in: bool = False,
    device: str = "cpu",
) -> PytorchRunner:
    """Load a checkpoint and patch it.

    Args:
        path: A checkpoint.
        threads: Intra-op threads; None leaves torch's default.
        recipe: Method and schedule; None takes the checkpoint's own, else no reduction.
        arch: Architecture by name; None infers it.
        num_heads: Attention heads, where width / 64 is wrong.
        assume: What else the weights do not show, by key, or as KEY=VALUE.
        image_size: Side of the input, pixels.
        ema: Read the averaged weights.
        ignore_extra: Leave out weights beside the ViT's.
        trust_checkpoint: Allow unpickling.
        pixels_in: Take uint8 [B, H, W, 3], as a file with preprocessing in its graph does.
        device: `cpu`, `cuda` or `cuda:1`.

    Raises:
        EnvironmentMissing: torch is not installed, or does not see that GPU.
        UsageError: No such kind of device.
        CheckpointError: The file cannot be read or does not fit.
    """
    require("torch", purpose=f"running the checkpoint {path}")
    from tmdeploy.models.checkpoint import load_checkpoint
    from tmdeploy.patching import patched_model

    device = _checked_device(device)
    start = perf_counter()
    loaded = load_checkpoint(
        path,
        arch=arch,
        num_heads=num_heads,
        assume=assume,
        image_size=image_size,
        ema=ema,
        ignore_extra=ignore_extra,
        trust_checkpoint=trust_checkpoint,
        method=None if recipe is None else recipe.spec,
    )
    card = loaded.card.replace(recipe=recipe or loaded.card.reduction)
    module = patched_model(loaded, card.reduction)
    runner = PytorchRunner(
        module,
        card,
        name=path.name,
        path=path,
        threads=threads,
        pixels_in=pixels_in,
        device=device,
        notes=loaded.notes,
    )
    runner.load_seconds = perf_counter() - start
    return runner


def load_runtime(path: Path) -> None:
    """Import torch, and what builds models."""
    require("torch", purpose=f"running the checkpoint {path}")
    import tmdeploy.models.checkpoint
    import tmdeploy.patching  # noqa: F401


def _checked_device(device: str) -> str:
    """With its number, which `cuda` leaves to torch."""
    kind, _, number = device.partition(":")
    if kind not in {"cpu", "cuda"} or (number and (kind == "cpu" or not number.isdigit())):
        raise UsageError(f"no device '{device}'", remedy="Give cpu, cuda or cuda:N")
    cuda = require("torch", purpose="running a checkpoint").cuda
    if kind == "cuda" and not (cuda.is_available() and int(number or 0) < cuda.device_count()):
        raise EnvironmentMissing(
            f"torch sees no {device} here", remedy="Install a CUDA build of torch and a driver, or use cpu"
        )
    return f"cuda:{cuda.current_device()}" if device == "cuda" else device


def _tf32_backends(torch: Any) -> tuple[Any, Any]:
    """Where TF32 can be on: matrix products, and, by default, convolutions."""
    return torch.backends.cuda.matmul, torch.backends.cudnn


def _array(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().numpy()


def _step(step: StepTensors, *, tensors: bool) -> StepTrace:
    def maybe(tensor: Tensor | None, wanted: bool = True) -> Array | None:
        return _array(tensor) if tensor is not None and wanted else None

    plan: IntArray = step.map.cpu().numpy()
    index: IntArray = step.index.cpu().numpy()
    return StepTrace(
        block=step.block,
        op=step.op,
        map=plan,
        index=index,
        signal=_array(step.signal),
        metric=maybe(step.metric),
        x_in=maybe(step.x_in, tensors),
        size_in=maybe(step.size_in, tensors),
        x_out=maybe(step.x_out, tensors),
        size_out=maybe(step.size_out, tensors),
    )
