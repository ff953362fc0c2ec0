"""Reading and writing `.safetensors`. The format holds no code; lengths are checked before they are used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tmdeploy.card.card import ModelCard
from tmdeploy.errors import CheckpointError
from tmdeploy.lazy import require
from tmdeploy.models.content import is_safetensors, not_a_checkpoint, read_head
from tmdeploy.models.document import FORMAT, dump, parse
from tmdeploy.models.formats import Contents

_AGAIN = "Get the file again"
_MAX_HEADER = 100 << 20  # safetensors' own limit


def read(path: Path, *, trust: bool) -> Contents:
    """Read a safetensors file.

    Args:
        path: The file.
        trust: Ignored: the format holds no code.

    Raises:
        CheckpointError: It is no such file, or damaged.
        EnvironmentMissing: safetensors is not installed.
    """
    del trust
    _check_header(path)
    safetensors = require("safetensors", purpose=f"reading {path}")
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as stream:
            header: Mapping[str, str] = stream.metadata() or {}
            weights: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"is truncated or damaged ({reason})", path=path, remedy=_AGAIN) from None
    if FORMAT not in header:
        return Contents(weights)
    try:
        document = json.loads(header[FORMAT])
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise CheckpointError("its tmdeploy description is no JSON object", path=path, remedy="Save it again")
    return Contents(weights, parse(document, path))


def write(path: Path, state_dict: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a safetensors file with its card in the header."""
    save_file = require("safetensors.torch", purpose=f"writing {path}").save_file
    header = {"format": "pt", FORMAT: json.dumps(dump(card))}
    save_file({name: tensor.contiguous().clone() for name, tensor in state_dict.items()}, str(path), metadata=header)


def _check_header(path: Path) -> None:
    head, size = read_head(path), path.stat().st_size
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > min(size - 8, _MAX_HEADER):
        # the first bytes of a foreign file, read as a length, are absurd too
        if not is_safetensors(head) and path.suffix.lower() != ".safetensors":
            raise not_a_checkpoint(path, head)
        raise CheckpointError(
            f"is truncated or damaged: its header says {length} bytes, the file has {size}", path=path, remedy=_AGAIN
        )
