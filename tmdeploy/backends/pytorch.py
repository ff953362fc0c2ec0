"""PyTorch, the reference: a checkpoint, patched with its method, run eagerly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Array, IntArray, StepTrace, Trace
from tmdeploy.lazy import require
from tmdeploy.metadata import ArtifactMetadata, Preprocessing
from tmdeploy.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tmdeploy.models.arch import VitConfig
    from tmdeploy.patching.step import StepTensors


class PytorchRunner:
    """A patched module behind the runner protocol; see `backends.base.Runner`.

    Attributes:
        recipe: Method and schedule it was patched with.
        config: Its architecture.
        preprocessing: From the checkpoint.
        class_names: From the checkpoint.
        load_seconds: Reading and building.
        notes: What was assumed about the checkpoint.
        pixels_in: Whether it takes uint8 pixels.
    """

    metadata: ArtifactMetadata | None = None

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        name: str,
        path: Path,
        config: VitConfig,
        preprocessing: Preprocessing,
        class_names: tuple[str, ...] = (),
        threads: int | None = None,
        pixels_in: bool = False,
    ) -> None:
        self._torch: Any = require("torch", purpose="running a checkpoint")
        from tmdeploy.patching import reduction_of

        self.name, self.path, self.recipe, self.config = name, path, recipe, config
        self.preprocessing, self.class_names = preprocessing, class_names
        self.load_seconds = 0.0
        self.notes: tuple[str, ...] = ()
        self._module = module.eval()
        self._state = reduction_of(module)
        self.pixels_in = pixels_in
        self._threads = threads

    def infer(self, images: NDArray[np.generic], schedule: Sequence[int] | None = None) -> Array:
        """Logits, f32 [B, classes]. Raises UsageError for a schedule of the wrong length."""
        with self._running(schedule):
            return _array(self._module(self._input(images)))

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

    def describe(self) -> dict[str, str]:
        """What runs."""
        return {
            "backend": "pytorch",
            "version": str(self._torch.__version__),
            "device": "cpu",
            "mode": "eager, scaled_dot_product_attention",
            "threads": str(self._threads or self._torch.get_num_threads()),
            "method": self.recipe.method,
        }

    def close(self) -> None:
        """Drop the module."""
        del self._module

    def _input(self, images: NDArray[np.generic]) -> Tensor:
        torch = self._torch
        dtype = next(self._module.parameters()).dtype
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        if self.pixels_in:
            mean = torch.tensor(self.preprocessing.mean).view(1, 3, 1, 1)
            std = torch.tensor(self.preprocessing.std).view(1, 3, 1, 1)
            tensor = (tensor.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
        return tensor.to(dtype)  # type: ignore[no-any-return]

    def _running(self, schedule: Sequence[int] | None) -> _Running:
        return _Running(self, schedule)


class _Running:
    """Inference mode, the asked-for threads and the asked-for schedule, for one call."""

    def __init__(self, runner: PytorchRunner, schedule: Sequence[int] | None) -> None:
        self._runner, self._schedule = runner, schedule
        self._inference = runner._torch.inference_mode()

    def __enter__(self) -> None:
        runner, torch = self._runner, self._runner._torch
        self._threads_before = torch.get_num_threads()
        amounts = runner.recipe.amounts if self._schedule is None else tuple(self._schedule)
        runner.recipe.steps(runner.config.tokens, runner.config.num_prefix, amounts)  # refuses what cannot be meant
        runner._state.set_schedule(amounts)
        if runner._threads is not None and runner._threads != self._threads_before:
            torch.set_num_threads(runner._threads)
        self._inference.__enter__()

    def __exit__(self, *_: object) -> None:
        self._inference.__exit__(None, None, None)
        if self._runner._threads is not None and self._runner._threads != self._threads_before:
            self._runner._torch.set_num_threads(self._threads_before)


def open_runner(
    path: Path,
    *,
    threads: int | None = None,
    recipe: Recipe | None = None,
    arch: str | None = None,
    num_heads: int | None = None,
    image_size: int | None = None,
    trust_checkpoint: bool = False,
    pixels_in: bool = False,
) -> PytorchRunner:
    """Load a checkpoint and patch it.

    Args:
        path: `.pt`, `.pth` or `.safetensors`.
        threads: Intra-op threads; None leaves torch's default.
        recipe: Method and schedule; None takes the checkpoint's own, else no reduction.
        arch: Architecture by name; None infers it.
        num_heads: Attention heads, where width / 64 is wrong.
        image_size: Side of the input, pixels.
        trust_checkpoint: Allow unpickling.
        pixels_in: Take uint8 [B, H, W, 3], as a file with preprocessing in its graph does.

    Raises:
        EnvironmentMissing: torch is not installed.
        CheckpointError: The file cannot be read or does not fit.
    """
    require("torch", purpose=f"running the checkpoint {path}")
    from tmdeploy.models.checkpoint import build_model, load_checkpoint
    from tmdeploy.patching import patch

    start = perf_counter()
    loaded = load_checkpoint(
        path, arch=arch, num_heads=num_heads, image_size=image_size, trust_checkpoint=trust_checkpoint
    )
    chosen = recipe or loaded.recipe or Recipe(method="none")
    module = patch(build_model(loaded), chosen)
    runner = PytorchRunner(
        module,
        chosen,
        name=path.name,
        path=path,
        config=loaded.config,
        preprocessing=loaded.preprocessing,
        class_names=loaded.class_names,
        threads=threads,
        pixels_in=pixels_in,
    )
    runner.load_seconds = perf_counter() - start
    runner.notes = loaded.notes
    return runner


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
