"""The weights inside what a checkpoint file held: which dictionary, which prefix, which dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tmdeploy.errors import CheckpointError

# Where training code keeps the weights, most wanted first. An averaged copy comes last: what the same file calls
# `model` is what its authors' own evaluation reads.
_KEYS = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "encoder",
    "backbone",
    "target_encoder",
    "teacher",
    "student",
    "model_ema",
    "state_dict_ema",
    "ema",
)
_MAX_NESTING = 4
_ANCHOR = "patch_embed.proj.weight"
_REMEDY = "Save model.state_dict() with torch.save, or name a checkpoint file that holds one"


def find_state_dict(held: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights in what a file held, under their plain names.

    Args:
        held: A state_dict, or dictionaries that hold one, or (from a trusted pickle) a module.
        path: Where it is from, for messages.

    Returns:
        Weights by name, float32, contiguous, on the CPU; and notes on what was chosen.

    Raises:
        CheckpointError: There is no state_dict in it, or there is something else between the weights.
    """
    found, keys = _descend(held, path)
    notes: tuple[str, ...] = ()
    if keys and isinstance(held, Mapping):
        unread = [key for key in _KEYS if key in held and key != keys[0] and _is_weights(held[key])]
        if unread:
            notes = (f"the weights under '{keys[0]}' are read, not those under '{unread[0]}'",)
    return as_float32(_without_prefix(dict(_tensors(found, path)), path)), notes


def as_float32(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached float32 copies where needed, on the CPU, contiguous."""
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in state_dict.items()}


def _descend(held: object, path: Path) -> tuple[Mapping[str, object], tuple[str, ...]]:
    keys: list[str] = []
    for _ in range(_MAX_NESTING):
        if isinstance(held, torch.nn.Module):
            held = held.state_dict()
        if not isinstance(held, Mapping):
            break
        inner = [key for key in _KEYS if isinstance(held.get(key), (Mapping, torch.nn.Module))]
        if not inner and _is_weights(held):
            return held, tuple(keys)
        if not inner:
            break
        chosen = next((key for key in inner if _is_weights(held[key])), inner[0])
        keys.append(chosen)
        held = held[chosen]
    if isinstance(held, Mapping):
        some = ", ".join(repr(str(key)) for key in list(held)[:5]) or "nothing"
        raise CheckpointError(f"has no state_dict; it holds {some}", path=path, remedy=_REMEDY)
    raise CheckpointError(f"holds a {type(held).__name__}, not a state_dict", path=path, remedy=_REMEDY)


def _is_weights(held: object) -> bool:
    if isinstance(held, torch.nn.Module):
        return True
    return isinstance(held, Mapping) and any(isinstance(value, Tensor) and value.dim() > 0 for value in held.values())


def _tensors(found: Mapping[str, object], path: Path) -> Iterator[tuple[str, Tensor]]:
    for name, value in found.items():
        if not isinstance(name, str):
            raise CheckpointError(f"names one of its weights {name!r}", path=path, remedy=_REMEDY)
        if value is None or isinstance(value, (bool, int, float)):
            continue  # counters such as num_batches_tracked
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"'{name}', between its weights, is a {type(value).__name__}, not a tensor", path=path, remedy=_REMEDY
            )
        if value.dim() == 0 and not value.is_floating_point():
            continue
        problem = _unusable(value)
        if problem:
            raise CheckpointError(
                f"'{name}' is {problem}", path=path, remedy="Save the plain floating-point weights instead"
            )
        yield name, value


def _unusable(value: Tensor) -> str | None:
    if value.layout is not torch.strided or value.is_quantized:
        return "sparse or quantised"
    if value.is_meta:
        return "on the meta device: it has a shape, but no values"
    if not value.is_floating_point():
        return f"of type {str(value.dtype).removeprefix('torch.')}"
    # A tensor that repeats one stored value by stride 0 would take any amount of memory once it is copied.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "larger than what the file stores for it"
    return None


def _without_prefix(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Drop `module.`, `backbone.`, `encoder.` ...: whatever stands before every name."""
    anchors = [name for name in tensors if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    # `ms_embed.0.proj` and friends do not end with the anchor, so a ViT has exactly one
    if len(anchors) != 1 or anchors[0] == _ANCHOR:
        return tensors
    prefix = anchors[0].removesuffix(_ANCHOR)
    outside = [name for name in tensors if not name.startswith(prefix)]
    if outside:
        raise CheckpointError(
            f"a ViT's weights begin with '{prefix}', but {len(outside)} others do not ({', '.join(outside[:3])})",
            path=path,
            remedy=f"Save the state_dict of '{prefix.rstrip('.')}' alone, with its head",
        )
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
