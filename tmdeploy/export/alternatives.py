"""Which assumption about a checkpoint would make our model compute what its owner's does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tmdeploy.card.arch import VitConfig
from tmdeploy.errors import TmdeployError
from tmdeploy.models.checkpoint import LoadedCheckpoint, build_model

Floats = NDArray[np.float32]
# What names and shapes of weights leave open, with what other models have there
_OTHERS: Mapping[str, tuple[object, ...]] = {
    "act": ("gelu", "quick_gelu", "gelu_tanh", "relu", "silu"),
    "norm_eps": (1e-5, 1e-6, 1e-12),
    "norm_placement": ("pre", "res_post"),
    "pool": ("token", "avg"),
}
_HEAD_WIDTHS = (64, 32, 16, 48, 80, 88, 96, 128)
_AT_ONCE = 2  # assumptions that may be wrong together
_BATCH = 4  # images at a time


def explain(loaded: LoadedCheckpoint, images: Floats, logits: Floats, limit: float) -> str:
    """Try what else could be assumed, up to two changes at once, and say what matches.

    One image tells assumptions apart; the match is then measured on all.

    Args:
        loaded: The checkpoint.
        images: f32 [n, channels, H, W], normalised.
        logits: What the owner's model returns for them.
        limit: Largest error that rounding explains.

    Returns:
        What to do, as an error's remedy.
    """
    singles = list(_single_changes(loaded.config))
    for count in range(1, _AT_ONCE + 1):
        for parts in itertools.combinations(singles, count):
            changes = dict(parts)
            if len(changes) < count or _distance(loaded, changes, images[:1], logits[:1]) > limit:
                continue
            error = _distance(loaded, changes, images, logits)
            if error <= limit:
                options = " ".join(f"--assume {name}={_text(value)}" for name, value in changes.items())
                # tmdeploy's own file states its architecture: what it states is wrong
                then = (
                    "export with that" if loaded.card.assumptions else "the file states otherwise, so save it again so"
                )
                return f"With {options} the error is {error:.1g}: {then}"
    tried = ", ".join(dict.fromkeys(name for name, _ in singles))
    return f"No other {tried} gives its outputs: it is another kind of model, or has other weights than the checkpoint"


def run_module(module: nn.Module, images: Floats) -> Floats:
    """Outputs of one of our modules, a few images at a time."""
    with torch.inference_mode():
        parts = [module(torch.from_numpy(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
    return torch.cat(parts).float().numpy()


def _single_changes(config: VitConfig) -> Iterator[tuple[str, object]]:
    for name, values in _OTHERS.items():
        yield from ((name, value) for value in values if value != getattr(config, name))
    for head in _HEAD_WIDTHS:
        if config.width % head == 0 and config.width // head != config.heads:
            yield "heads", config.width // head


def _distance(loaded: LoadedCheckpoint, changes: dict[str, Any], images: Floats, logits: Floats) -> float:
    """Largest error with these changes; infinity where they are impossible or do not fit the weights."""
    try:
        module = build_model(replace(loaded, card=loaded.card.replace(architecture=loaded.config.replace(**changes))))
        difference = np.abs(run_module(module, images) - logits)
    except TmdeployError:
        return float("inf")
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
