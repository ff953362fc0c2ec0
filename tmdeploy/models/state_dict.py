"""Finding the weights in a checkpoint's content: which dictionary, which prefix, which dtype."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tmdeploy.errors import CheckpointError

# Keys of an averaged copy of the weights: timm, DeiT, callbacks of Lightning, DINO, I-JEPA.
_EMA_KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "ema_weights",
    "ema",
    "teacher",
    "target_encoder",
)
# Keys of the weights themselves, in order of preference. Most averaged copies come last: `model` in the same file is
# what its authors evaluate. After self-supervised training it is the averaged copy.
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
    *_EMA_KEYS,
)
_EMA_PREFIX = re.compile(r"(^|[._])(ema|averaged|momentum|teacher|target)([._]|$)")
_MAX_NESTING = 4
_ANCHOR = "patch_embed.proj.weight"
_REMEDY = "Save model.state_dict() with torch.save, or name a checkpoint file that holds one"
_SHARING = 2  # tensors may take this many times what the file stores: tied weights are stored once


def find_state_dict(
    held: object, path: Path, *, ema: bool = False, ignore_extra: bool = False
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the weights in the content of a file, without prefixes.

    Args:
        held: A state_dict, dictionaries that hold one, or (from a trusted pickle) a module.
        path: Where it is from, for messages.
        ema: Read the averaged copy of the weights (exponential moving average).
        ignore_extra: Leave out weights beside the ViT's, such as a decoder's.

    Returns:
        Weights by name, float32, contiguous, on the CPU; and notes on what was chosen.

    Raises:
        CheckpointError: There is no state_dict, no averaged one, or something other than weights in it.
    """
    found, keys = _descend(held, path, ema=ema)
    notes: list[str] = []
    # Lightning's WeightAveraging puts the average where the weights were
    averaged = bool(keys) and (keys[-1] in _EMA_KEYS or (isinstance(held, Mapping) and "averaging_state" in held))
    if keys and isinstance(held, Mapping):
        unread = [key for key in _KEYS if key in held and key != keys[0] and _is_weights(held[key])]
        if unread:
            more = ": pass --ema to read those" if unread[0] in _EMA_KEYS and not ema else ""
            notes.append(f"the weights under '{keys[0]}' are read, not those under '{unread[0]}'{more}")
    chosen, prefix, dropped = _without_prefix(dict(_tensors(found, path)), path, ema=ema, ignore_extra=ignore_extra)
    averaged |= bool(_EMA_PREFIX.search(prefix))
    if ema and not averaged:
        raise CheckpointError(
            "has no averaged (EMA) weights that tmdeploy knows", path=path, remedy="Leave --ema out to read the others"
        )
    if ema:
        notes.append(f"the averaged weights under '{'.'.join([*keys, prefix.rstrip('.')]).strip('.')}' are read")
    _check_sharing(chosen, path)
    return as_float32(chosen), (*notes, *dropped)


def as_float32(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached float32 copies where needed, on the CPU, contiguous."""
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in state_dict.items()}


def _descend(held: object, path: Path, *, ema: bool) -> tuple[Mapping[str, object], tuple[str, ...]]:
    keys: list[str] = []
    for _ in range(_MAX_NESTING):
        if isinstance(held, torch.nn.Module):
            held = held.state_dict()
        if not isinstance(held, Mapping):
            break
        inner = [key for key in _KEYS if isinstance(held.get(key), (Mapping, torch.nn.Module))]
        if ema:
            callback = _averaging_callback(held)
            if callback is not None:
                keys, held = [*keys, "callbacks"], callback
                continue
            inner.sort(key=lambda key: key not in _EMA_KEYS)
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


def _averaging_callback(held: Mapping[str, object]) -> Mapping[str, object] | None:
    """The state of the Lightning callback that keeps averaged weights."""
    callbacks = held.get("callbacks")
    if any(key in held for key in _EMA_KEYS) or not isinstance(callbacks, Mapping):
        return None
    for state in callbacks.values():
        if isinstance(state, Mapping) and any(_is_weights(state.get(key)) for key in _EMA_KEYS):
            return state
    return None


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


def _check_sharing(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse many names for one stored tensor: they cost the file nothing, but memory for each once converted."""
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if wanted > _SHARING * sum(stored.values()):
        raise CheckpointError(
            f"its {len(tensors)} tensors take {wanted / 1e6:.0f} MB, but share {sum(stored.values()) / 1e6:.1f} MB",
            path=path,
            remedy="Save the plain weights, each with its own values",
        )


def _without_prefix(
    tensors: dict[str, Tensor], path: Path, *, ema: bool, ignore_extra: bool
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Drop the common prefix of all names: `module.`, `backbone.`, `encoder.` ...

    Returns:
        The weights, their prefix, and notes on what was left out.
    """
    # `ms_embed.0.proj` and friends do not end with the anchor, so a ViT has exactly one
    prefixes = [name.removesuffix(_ANCHOR) for name in tensors if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    if not prefixes or prefixes == [""]:
        return tensors, "", ()
    prefix = _wanted_prefix(prefixes, path, ema=ema)
    others = [other for other in prefixes if other != prefix and other.startswith(prefix)]
    mine = {name for name in tensors if name.startswith(prefix) and not name.startswith(tuple(others))}
    outside = [name for name in tensors if name not in mine and not name.startswith(tuple(prefixes))]
    if outside and not ignore_extra:
        raise CheckpointError(
            f"a ViT's weights begin with '{prefix}', but {len(outside)} others do not ({', '.join(outside[:3])})",
            path=path,
            remedy=f"Save the state_dict of '{prefix.rstrip('.')}' alone, with its head, or leave the others out with "
            "--ignore-extra",
        )
    notes = [
        f"the weights under '{prefix}' are read, not those under '{other}'" for other in prefixes if other != prefix
    ]
    if outside:
        more = f" and {len(outside) - 3} more" if len(outside) > 3 else ""
        notes.append(f"left out, since they are not under '{prefix}': {', '.join(outside[:3])}{more}")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name in mine}, prefix, tuple(notes)


def _wanted_prefix(prefixes: list[str], path: Path, *, ema: bool) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    wanted = [prefix for prefix in prefixes if bool(_EMA_PREFIX.search(prefix)) == ema]
    if len(wanted) != 1:
        listed = ", ".join(f"'{prefix}'" for prefix in prefixes[:5])
        raise CheckpointError(
            f"holds the weights of {len(prefixes)} ViTs, under {listed}",
            path=path,
            remedy="Save the state_dict of one of them",
        )
    return wanted[0]
