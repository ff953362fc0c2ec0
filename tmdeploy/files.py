"""Writing files so that an interrupted run leaves no half file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tmdeploy.ending import removed_at_the_end
from tmdeploy.errors import ArtifactError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` on success, delete it on any failure.

    The temporary name keeps the suffix (libraries look at it) and begins with a dot. SIGKILL can leave it behind,
    but never under the target's name.

    Raises:
        ArtifactError: The folder is missing or not writable, or the disk is full.
    """
    target = Path(target)
    if target.is_dir():
        raise ArtifactError("is a folder, not a file", path=target, remedy="Name a file with -o")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            with removed_at_the_end(temporary):
                yield temporary
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would surprise whoever shares the folder
            os.replace(temporary, target)
        except OSError as error:
            raise _cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(target: Path) -> None:
    """Fail early, before minutes of work, when `target` could not be written.

    Raises:
        ArtifactError: The folder is missing or not writable, or `target` is a folder.
    """
    target = Path(target)
    if target.is_dir():
        raise ArtifactError("is a folder, not a file", path=target, remedy="Name a file with -o")
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{target.stem}-", dir=target.parent):
            pass
    except OSError as error:
        raise _cannot_write(target, error) from error


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically, UTF-8. Raises ArtifactError as `atomic_path` does."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _cannot_write(target: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"cannot be written ({error.strerror or error})",
        path=target,
        remedy="Choose another place with -o, or free space and check the folder's permissions",
    )
