"""From a patched module to an ONNX graph with one custom node a planner and a reduce."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from torch import Tensor, nn

from tmdeploy.errors import ExportError
from tmdeploy.export.translate import translation_table
from tmdeploy.graph.runtime_schedule import KEPT, SLOTS
from tmdeploy.patching import Reduction
from tmdeploy.patching.step import Counts

BATCH = "batch"
SIZE = "size_after_last_step"


class _Program(nn.Module):
    """The module as it is traced: counts come from the lengths of probe inputs, one symbol a step.

    A count that is the size of an input dimension is a backed symbolic integer, so the exporter neither guards on it
    nor relates it to the counts of other steps (design: docs/architecture.md, "Runtime schedule").
    """

    def __init__(
        self, module: nn.Module, state: Reduction, *, runtime: bool, with_features: bool, with_size: bool
    ) -> None:
        super().__init__()
        self.module = module
        self._state = state
        self._runtime = runtime
        self._with_features = with_features
        self._with_size = with_size

    def forward(self, images: Tensor, slots: Sequence[Tensor] = (), kept: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        if self._runtime:
            layers = self._state.recipe.layers
            stays: list[Tensor | None] = [*kept] or [None] * len(slots)
            self._state.counts = {
                layer: Counts(total, stay) for layer, total, stay in zip(layers, slots, stays, strict=True)
            }
        features: list[Tensor] = []  # what the classifier sees
        hooks = []
        if self._with_features:
            head = self.module.get_submodule("head")
            hooks.append(head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float())))
        logits = self.module(images.to(next(self.module.parameters()).dtype)).float()
        for hook in hooks:
            hook.remove()
        sizes = [self._state.size] if self._with_size and self._state.size is not None else []
        return (logits, *features[:1], *sizes)


def build_graph(
    module: nn.Module,
    state: Reduction,
    image_shape: tuple[int, int, int],
    *,
    opset: int,
    dynamic_batch: bool,
    runtime: bool,
    counts: Sequence[tuple[int, int | None]],
    with_features: bool = False,
    with_size: bool = False,
) -> ir.Model:
    """Trace and translate.

    Args:
        module: Patched, in eval mode.
        state: Its reduction.
        image_shape: Channels, height, width.
        opset: Version of the standard operators.
        dynamic_batch: Whether the batch is symbolic.
        runtime: Whether the counts are probe inputs; else they are constants of the recipe.
        counts: M and, for a selection that fuses, K of each step, to trace with.
        with_features: Add the input of the module's `head` as output `features`.
        with_size: Add the sizes after the last step as the last output, so that what computes them stays alive.

    Returns:
        A model with inputs `images` and, at run time, `slots_0`, ... and `kept_0`, ...

    Raises:
        ExportError: torch.export or torch.onnx refused.
    """
    batch = 2 if dynamic_batch else 1
    images = torch.zeros(batch, *image_shape)
    slots = [torch.arange(total) for total, _ in counts] if runtime else []
    kept = [torch.arange(stay) for _, stay in counts if stay is not None] if runtime else []
    dynamic: dict[str, object] = {
        "images": {0: torch.export.Dim(BATCH, min=1, max=65535)} if dynamic_batch else None,
        "slots": [{0: torch.export.Dim.DYNAMIC} for _ in slots],
        "kept": [{0: torch.export.Dim.DYNAMIC} for _ in kept],
    }
    program = _Program(module, state, runtime=runtime, with_features=with_features, with_size=with_size)
    outputs = ["logits", *["features"] * with_features, *[SIZE] * with_size]
    try:
        with _quiet(), torch.no_grad():
            exported = torch.export.export(
                program,
                (images, slots, kept),
                dynamic_shapes=dynamic,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            translated = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=opset,
                custom_translation_table=translation_table(),
                input_names=["images", *(f"{SLOTS}{i}" for i in range(len(slots)))]
                + [f"{KEPT}{i}" for i in range(len(kept))],
                output_names=outputs,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "Run again with --debug"
        if dynamic_batch and "Constraints violated (batch)" in str(error):
            remedy = (
                "Its code fixes the batch size, as len(x) does and x.shape[0] does not: change that, or give up on "
            )
            remedy += "other batch sizes with dynamic_batch=False (--static-batch)"
        raise ExportError(
            f"torch could not export the model ({type(error).__name__}: {first})", remedy=remedy
        ) from error
    finally:
        state.counts = None
    assert translated is not None  # noqa: S101 - it is, with dynamo=True
    return translated.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's reports on its own internals; our self-check judges the result."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
