"""Timing caches of full TensorRT: one file per GPU and version, in the user's cache folder."""

from __future__ import annotations

import re
from pathlib import Path

from tmdeploy.errors import ArtifactError
from tmdeploy.system.cache import user_cache
from tmdeploy.system.files import atomic_path


def default_timing_cache(version: str, gpu: str, sm: str) -> Path:
    """Path of the timing cache for one version on one kind of GPU.

    Args:
        version: TensorRT's version.
        gpu: Name of the device.
        sm: Its compute capability, such as `sm_89`.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-").lower()
    return user_cache() / "timing" / f"tensorrt-{version}-{name}-{sm}.cache"


def read_timing_cache(path: Path) -> bytes:
    """Content of the cache; empty if there is none yet."""
    return path.read_bytes() if path.is_file() else b""


def write_timing_cache(path: Path, content: bytes) -> None:
    """Replace the cache.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot be created ({error.strerror or error})", path=path.parent, remedy="Name a file with --timing-cache"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
