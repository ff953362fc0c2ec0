"""Writing files: nothing half-written, no input overwritten, no device replaced, no temporary file left for good."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.system.ending import removed_at_the_end

if sys.platform != "win32":  # without locks nobody knows whether a temporary file is still in use, so none is removed
    import fcntl

_STEM_BYTES = 255 - len(".-4194304-0123abcd.safetensors")  # file systems allow names of 255 bytes


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Fail before minutes of work if an output cannot be written or would overwrite an input.

    Args:
        outputs: Paths by the option that names them, such as `--json`, or by what they are (`the sidecar`) if they go
            along with `-o`. None is not written. A device or pipe is fine here; whether one is fine for this output,
            `atomic_path` and `write_text` say.
        inputs: Files that the command reads; a missing one is reported by the code that reads it.

    Raises:
        UsageError: An output is an input, or another output, under whatever name or link.
        ArtifactError: The folder is missing or not writable, or an output is a folder or write-protected.
    """
    read = {_identity(Path(path)): path for path in inputs}
    seen: dict[tuple[object, object], tuple[str, Path]] = {}
    for label, target in outputs.items():
        if target is None:
            continue
        option, named = (label, f"{label} {target}") if label.startswith("-") else ("-o", str(target))
        check_writable(target, option=option)
        if _is_stream(target):
            continue
        identity = _identity(target)
        if identity in read:
            which = "an input" if target == Path(read[identity]) else f"the input {read[identity]}"
            raise UsageError(f"{named} is {which}, and would be overwritten", remedy=f"Name another with {option}")
        if identity in seen and _same(target, seen[identity][1]):
            raise UsageError(f"{seen[identity][0]} and {label} name the same file, {target}", remedy="Name two files")
        seen[identity] = (label, target)


def check_writable(target: Path, *, option: str = "-o") -> None:
    """Fail early, before minutes of work, when `target` could not be written.

    Raises:
        ArtifactError: The folder is missing or not writable, or `target` is a folder, write-protected, or neither a
            file nor a device or pipe.
    """
    target = Path(target)
    if _existing(target, option) is not None:
        if not os.access(target, os.W_OK):
            raise _cannot_write(target, PermissionError(13, "it is write-protected"), option)
        if _is_stream(target):
            return
    try:
        with tempfile.TemporaryFile(dir=_real(target).parent):
            pass
    except OSError as error:
        raise _cannot_write(target, error, option) from error


@contextlib.contextmanager
def atomic_path(target: Path, *, option: str = "-o") -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` on success, delete it on any failure.

    A symlink is followed: what it points to is written. A file that is replaced keeps its mode and, where the system
    allows it, its owner. The temporary name keeps the suffix (libraries look at it) and begins with a dot. SIGKILL can
    leave it behind, but never under the target's name, and the next write to the same target removes it.

    Args:
        target: The file to write.
        option: The option that named it, for the remedy.

    Raises:
        ArtifactError: The folder is missing or not writable, the disk is full, or `target` is no regular file.
    """
    target = Path(target)
    before = _existing(target, option)
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise ArtifactError(
            "is a device or pipe, and this has to be a file", path=target, remedy=f"Name another with {option}"
        )
    real = _real(target)
    _remove_stale(real)
    try:
        if before is not None and not os.access(target, os.W_OK):
            raise PermissionError(13, "it is write-protected")
        lock, temporary = _create(real, 0o666 if before is None else stat.S_IMODE(before.st_mode))
    except OSError as error:
        raise _cannot_write(target, error, option) from error
    try:
        try:
            with removed_at_the_end(temporary):
                yield temporary
            if before is not None:
                _keep(before, temporary)
            os.replace(temporary, real)
        except OSError as error:
            raise _cannot_write(target, error, option) from error
    finally:
        os.close(lock)
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str, *, option: str = "-o") -> None:
    r"""Write a text file atomically, as UTF-8; bytes of file names that are not UTF-8 are escaped as `\udcff`.

    A device or pipe (`/dev/stdout`, `/dev/null`) is written to. Raises ArtifactError as `atomic_path` does.
    """
    target = Path(target)
    content = text.encode("utf-8", "backslashreplace")
    if _existing(target, option) is None or not _is_stream(target):
        with atomic_path(target, option=option) as temporary:
            temporary.write_bytes(content)
        return
    try:
        with target.open("ab") as stream:  # "w" would truncate a redirected /dev/stdout
            stream.write(content)
    except OSError as error:
        raise _cannot_write(target, error, option) from error


def make_folder(folder: Path, *, option: str = "-o") -> None:
    """Create a folder for results, with those above it.

    Raises:
        ArtifactError: A file is in the way, or it may not be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = "is a file, not a folder" if folder.is_file() else f"cannot be created ({error.strerror or error})"
        raise ArtifactError(what, path=folder, remedy=f"Name another folder with {option}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _existing(target: Path, option: str) -> os.stat_result | None:
    """The existing file, links followed; None if there is none.

    Raises:
        ArtifactError: It is a folder, a socket or a block device, or cannot be examined.
    """
    try:
        os.stat(target.parent)
        found = os.stat(target)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and target.parent.exists():
            return None
        raise _cannot_write(target, error, option) from error
    if stat.S_ISDIR(found.st_mode):
        raise ArtifactError("is a folder, not a file", path=target, remedy=f"Name a file with {option}")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISCHR(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        raise ArtifactError("is a disk or socket, not a file", path=target, remedy=f"Name a file with {option}")
    return found


def _is_stream(target: Path) -> bool:
    """Whether to write into the existing target instead of replacing it: a device, a pipe, an open file descriptor."""
    try:
        mode = os.stat(target).st_mode
    except OSError:
        return False
    by_number = re.match(r"/dev/(fd/|std(out|err)$)|/proc/[^/]+/fd/", os.path.abspath(target)) is not None
    return by_number or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _real(target: Path) -> Path:
    return Path(os.path.realpath(target))


def _identity(path: Path) -> tuple[object, object]:
    """A key that is equal for two paths to one file, through any link; also for files that do not exist yet."""
    try:
        found = os.stat(path)
    except OSError:
        real = _real(path)
        return real.parent, real.name.casefold()
    return found.st_dev, found.st_ino


def _same(one: Path, other: Path) -> bool:
    """Whether two paths with equal keys are one file; names that differ in case are, on some file systems."""
    return one.exists() or _real(one) == _real(other) or _ignores_case(_real(one).parent)


def _ignores_case(folder: Path) -> bool:
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(prefix=".tmdeploy-a", dir=folder) as made:
        return Path(made.name).with_name(Path(made.name).name.swapcase()).exists()
    return False


def _create(target: Path, mode: int) -> tuple[int, Path]:
    """Create a file beside `target`, locked while its descriptor is open."""
    while True:
        name = f"{_prefix(target)}{os.getpid()}-{secrets.token_hex(4)}{target.suffix}"
        path = target.with_name(name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
        if sys.platform == "win32":
            return descriptor, path
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = path.exists()  # and it was not mistaken for a dead writer's before it was locked
        except OSError as error:
            kept = not isinstance(error, BlockingIOError)  # a file system without locks
        if kept:
            return descriptor, path
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    """Remove the temporary files that killed writers of `target` left behind.

    A file goes only if it is ours, its writer's process is gone, and nobody holds its lock (processes of other
    containers that share the folder have numbers that mean nothing here).
    """
    if sys.platform == "win32":
        return
    pattern = re.compile(re.escape(_prefix(target)) + r"(\d+)-[0-9a-f]{8}" + re.escape(target.suffix))
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            made = pattern.fullmatch(entry.name)
            if made is not None and not _runs(int(made[1])):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        finally:
            os.close(descriptor)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _prefix(target: Path) -> str:
    return f".{os.fsencode(target.stem)[:_STEM_BYTES].decode(errors='ignore')}-"


def _keep(before: os.stat_result, path: Path) -> None:
    """Give a new file the mode and, where the system allows it, the owner of the one it replaces."""
    now = path.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(OSError, AttributeError):
            os.chown(path, before.st_uid, before.st_gid)
    os.chmod(path, stat.S_IMODE(before.st_mode) & 0o777)


def _cannot_write(target: Path, error: OSError, option: str) -> ArtifactError:
    return ArtifactError(
        f"cannot be written ({error.strerror or error})",
        path=target,
        remedy=f"Choose another place with {option}, or free space and check the folder's permissions",
    )
