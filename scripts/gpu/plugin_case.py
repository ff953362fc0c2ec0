"""Case files of plugins/tensorrt/harness/: write the tensors, run, read the results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int32: "int32",
    torch.int64: "int64",
}
_ITEM_SIZE = {name: torch.empty(0, dtype=dtype).element_size() for dtype, name in _NAMES.items()}


class HarnessError(Exception):
    """The harness or the plugin in it failed; the message is what it said."""


def _raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def run_case(
    harness: Path,
    library: Path,
    folder: Path,
    op: str,
    attributes: dict[str, int | float | str],
    inputs: list[Tensor],
    outputs: list[tuple[torch.dtype, tuple[int, ...]]],
) -> tuple[list[Tensor], dict[str, Any]]:
    """Run one enqueue of the plugin `op`.

    Returns:
        The outputs on the CPU, and what the harness measured.

    Raises:
        HarnessError: The plugin could not be made, refused the tensors, or its graph gave another result.
    """
    lines = [f"op {op}"]
    for name, value in attributes.items():
        kind = {int: "int", float: "float", str: "text"}[type(value)]
        lines.append(f"{kind} {name} {value}")
    for i, tensor in enumerate(inputs):
        path = folder / f"in{i}.bin"
        path.write_bytes(_raw(tensor.cpu()))
        lines.append(" ".join(["in", _NAMES[tensor.dtype], str(path), *map(str, tensor.shape)]))
    for i, (dtype, shape) in enumerate(outputs):
        lines.append(" ".join(["out", _NAMES[dtype], str(folder / f"out{i}.bin"), *map(str, shape)]))
    case = folder / "case.txt"
    case.write_text("\n".join(lines) + "\n")
    done = subprocess.run(  # noqa: S603
        [str(harness), str(library), "run", str(case)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise HarnessError((done.stderr or done.stdout).strip())
    results = []
    for i, (dtype, shape) in enumerate(outputs):
        data = bytearray((folder / f"out{i}.bin").read_bytes())
        results.append(torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype))
    return results, json.loads(done.stdout)
