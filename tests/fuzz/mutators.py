"""Ways to break a file: its bytes, and, so that readers get further than the first check, what the bytes mean."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import onnx
import torch

from tmdeploy.card.metadata import METADATA_KEY

Mutator = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    10**30,
    0.5,
    -0.0,
    1e-300,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\x1b[31m[/bold]",
    "\ud800",
    "n" * 5000,
    "../../etc/passwd",
    True,
    None,
    [],
    {},
    [[]],
    [0] * 3000,
)


def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes become others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing, doubled, zeroed or moved."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 4, 16, 200))]
    rest = data[:start] + data[start + len(piece) :]
    place = rng.randrange(len(data))
    return rng.choice(
        (rest, data[:place] + piece + data[place:], data[:start] + bytes(len(piece)) + data[start + len(piece) :])
    )


def change_json(text: str, rng: random.Random) -> str:
    """Values of a JSON document are replaced, dropped, doubled, nested or renamed."""
    document = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        document = _changed(document, rng)
    return json.dumps(document)


def json_document(data: bytes, rng: random.Random) -> bytes:
    """A file that is JSON."""
    if rng.random() < 0.03:
        return b"[" * 100_000
    return change_json(data.decode(), rng).encode("utf-8", "surrogatepass")


def onnx_metadata(data: bytes, rng: random.Random) -> bytes:
    """The JSON that an .onnx carries."""
    model = onnx.load_from_string(data)
    entries = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not entries:
        return flip_bytes(data, rng)
    entries[0].value = change_json(entries[0].value, rng).encode("utf-8", "replace").decode()
    return model.SerializeToString()


def onnx_fields(data: bytes, rng: random.Random) -> bytes:
    """Fields of the protobuf message, wherever they are in it."""
    model = onnx.load_from_string(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _change_message(model, rng)
    return model.SerializeToString()


def torch_document(data: bytes, rng: random.Random) -> bytes:
    """What a checkpoint of torch holds: names, tensors, tmdeploy's own description."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = _changed(content, rng)
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    """Names, types, shapes, offsets and texts of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = change_json(data[8 : 8 + length].decode(), rng).encode("utf-8", "replace")
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _changed(document: Any, rng: random.Random) -> Any:
    """The same with one thing in it changed; also texts that are JSON themselves are entered."""
    places = list(_places(document))
    if not places:
        return copy.deepcopy(rng.choice(_VALUES))
    holder, key = rng.choice(places)
    value = holder[key]
    if isinstance(value, str) and value[:1] in {"{", "["}:
        holder[key] = change_json(value, rng)
    elif isinstance(value, torch.Tensor) and rng.random() < 0.8:
        holder[key] = _changed_tensor(value, rng)
    else:
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.extend([value] * rng.choice((1, 3, 500)))
        elif kind == 1:
            holder[str(rng.choice(_VALUES))[:100]] = value
        elif kind == 2 and isinstance(value, (int, float)) and not isinstance(value, bool):
            holder[key] = value + rng.choice((-1, 1))
        elif kind == 3:
            other, name = rng.choice(places)
            there = (isinstance(other, list) and name < len(other)) or (isinstance(other, dict) and name in other)
            holder[key] = copy.deepcopy(other[name]) if there else None
        else:
            holder[key] = copy.deepcopy(rng.choice(_VALUES))
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    found, waiting, seen = [], [document], set()
    while waiting:
        holder = waiting.pop()
        if not isinstance(holder, (dict, list)) or id(holder) in seen:
            continue
        seen.add(id(holder))
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            waiting.append(holder[key])
    return found


def _changed_tensor(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    kind = rng.randrange(6)
    if kind == 0:
        return tensor.reshape(-1)
    if kind == 1:
        return tensor[:1] if tensor.ndim else tensor
    if kind == 2:
        return torch.cat([tensor, tensor]) if tensor.ndim else tensor
    if kind == 3:
        return tensor.to(rng.choice((torch.int64, torch.float16, torch.bool, torch.complex64)))
    if kind == 4:
        return torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor
    return tensor[:1].expand(2**20, *tensor.shape[1:]) if tensor.ndim else tensor


def _change_message(message: Any, rng: random.Random) -> None:
    """Walk down to some field, and change it."""
    while True:
        fields = message.ListFields()
        if not fields:
            return
        descriptor, value = rng.choice(fields)
        repeated = not isinstance(value, (str, bytes, int, float, bool)) and hasattr(value, "__len__")
        if descriptor.message_type is None or rng.random() < 0.1:
            break
        if repeated:
            value = rng.choice(value)
        message = value
    kind = rng.randrange(4)
    if kind == 0:
        message.ClearField(descriptor.name)
    elif repeated and kind == 1:
        del value[rng.randrange(len(value))]
    elif repeated and kind == 2:
        value.extend([value[rng.randrange(len(value))]] * rng.choice((1, 2, 50)))
    elif descriptor.message_type is not None:
        message.ClearField(descriptor.name)
    else:
        _set(message, descriptor, value, repeated, rng)


def _set(message: Any, descriptor: Any, value: Any, repeated: bool, rng: random.Random) -> None:
    sample = value[0] if repeated else value
    if isinstance(sample, bytes):
        new: Any = sample[: rng.randrange(len(sample) + 1)] + rng.randbytes(rng.choice((0, 1, 8)))
    elif isinstance(sample, str):
        new = rng.choice(("", "x", "images", "logits", sample + sample, "tmdeploy", "../x", "n" * 3000))
    elif isinstance(sample, float):
        new = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    else:
        new = rng.choice((*_NUMBERS, sample + 1, sample - 1))
    try:
        if repeated:
            value[rng.randrange(len(value))] = new
        else:
            setattr(message, descriptor.name, new)
    except ValueError:  # not within the field's type
        message.ClearField(descriptor.name)


BYTES: dict[str, Mutator] = {"bytes": flip_bytes, "truncated": truncate, "spliced": splice}
# What else a file of this suffix can be broken by.
MEANING: dict[str, dict[str, Mutator]] = {
    ".onnx": {"metadata": onnx_metadata, "protobuf": onnx_fields},
    ".pt": {"content": torch_document},
    ".safetensors": {"header": safetensors_header},
    ".json": {"document": json_document},
}
