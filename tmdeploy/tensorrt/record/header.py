"""The header of an engine file: which flavor, which version, and whether the file is complete. Needs no GPU."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tmdeploy.errors import ArtifactError
from tmdeploy.tensorrt.sdk.flavor import Flavor

# Seen in files of TensorRT-RTX 1.7: magic, u32 0, u64 2, u64 length of the file, four bytes of version.
_VERSIONED_MAGIC, _VERSIONED = b"vtrt", struct.Struct("<4sIQQ4B")
_FULL_MAGICS = (b"ftrt", b"ptrt")  # full TensorRT (pytorch/TensorRT looks for the first); its version is not readable
_FIRST_FULL_MAJOR = 8  # TensorRT-RTX counts from 1


@dataclass(frozen=True)
class Header:
    """What the file says about itself.

    Attributes:
        flavor: Which runtime reads it.
        version: Version of the builder; None if the header does not say.
    """

    flavor: Flavor
    version: str | None


def read_header(path: Path) -> Header:
    """Read the header of an engine file.

    Raises:
        ArtifactError: The file is missing, empty, truncated, or no engine.
    """
    if not path.is_file():
        raise ArtifactError("no such file", path=path, remedy="Check the path")
    length = path.stat().st_size
    if length == 0:
        raise ArtifactError("is empty", path=path, remedy="Build it again")
    with path.open("rb") as stream:
        start = stream.read(_VERSIONED.size)
    magic = start[:4]
    if magic in _FULL_MAGICS:
        return Header(Flavor.TENSORRT, None)
    if magic != _VERSIONED_MAGIC or len(start) < _VERSIONED.size:
        raise ArtifactError(
            f"is no TensorRT engine (it begins with {start[:8]!r})", path=path, remedy=_remedy(start, path)
        )
    _, _, _, stated, *version = _VERSIONED.unpack(start)
    flavor = Flavor.RTX if version[0] < _FIRST_FULL_MAJOR else Flavor.TENSORRT
    if flavor is Flavor.RTX and stated != length:
        raise ArtifactError(
            f"is truncated or damaged: {length} bytes are here, its header says {stated}",
            path=path,
            remedy="Copy it again, in binary mode, or build it again",
        )
    return Header(flavor, ".".join(map(str, version)))


def _remedy(start: bytes, path: Path) -> str:
    if start[:1] == b"\x08":  # an ONNX file begins with its IR version
        return f"It looks like an ONNX file: name it .onnx and run tmdeploy build on it with -o {path.name}"
    if start[4:5] == b"{":
        return "It looks like an Ultralytics file, with JSON before the engine: cut that off first"
    return "Give a file that tmdeploy build or trtexec wrote"
