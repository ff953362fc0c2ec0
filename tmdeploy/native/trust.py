"""Which native libraries may be loaded: intact ones that nobody else could have written.

A library runs with all the rights of its user. Whoever can write tmdeploy's own code has those already, so the folders
of this code and its owner are trusted. Anything else must belong to the user or to root and be writable by nobody
else, and so must the folders above it: then nobody can exchange a library between the check and the load.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.system.files import sha256, write_text

_CODE = Path(__file__).resolve()
NO_NATIVE = "run with TMDEPLOY_NATIVE=0"


def checked_library(library: Path, *, build: str, without: str = NO_NATIVE, stated: str | None = None) -> Path:
    """Refuse a library that somebody else could have written, that is truncated, or that was changed.

    Args:
        library: The file.
        build: The command that builds it, for the remedy.
        without: How to do without it, as an instruction.
        stated: Its expected SHA-256; None reads it from the file beside the library.

    Returns:
        The path with symbolic links resolved: load exactly this file.

    Raises:
        EnvironmentMissing: It is refused.
    """
    refused = f"the native library {library} is not loaded: "
    try:
        path = library.resolve(strict=True)
        if not stat.S_ISREG(path.stat().st_mode):
            raise EnvironmentMissing(f"{refused}it is no file", remedy=f"Remove it, or {without}")
        who = writable_by_others(path)
        if who is not None:
            raise EnvironmentMissing(f"{refused}{who[0]}", remedy=f"{who[1]}, or {without}")
        stated = stated or _stated(path)
        whole = stated is not None and stated == sha256(path)
    except OSError as error:
        raise EnvironmentMissing(
            f"{refused}{error.strerror or error}", remedy=f"Build it again with {build}, or {without}"
        ) from None
    if not whole:
        name = checksum_path(path).name
        why = f"there is no {name} beside it" if stated is None else f"it is truncated or changed, by {name}"
        raise EnvironmentMissing(f"{refused}{why}", remedy=f"Build it again with {build}, or {without}")
    return path


def writable_by_others(path: Path) -> tuple[str, str] | None:
    """Who else could have written a file of code, with the remedy; None if nobody could.

    Args:
        path: The file, links resolved.
    """
    if sys.platform == "win32":
        return None
    code = _CODE.stat()
    # The owner of / is root, or what root is called inside a container that maps users.
    owners = {0, Path("/").stat().st_uid, os.geteuid(), code.st_uid}
    for entry in (path, *path.parents):
        if entry in _CODE.parents:
            return None
        status = entry.stat()
        if status.st_uid not in owners:
            what = "it belongs" if entry == path else f"its folder {entry} belongs"
            return f"{what} to user {status.st_uid}, not to you or root", "Build your own"
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_gid == code.st_gid:
            shared &= ~(code.st_mode & stat.S_IWGRP)  # a group that may also write this code
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
            shared = 0  # sticky, like /tmp: nobody can remove the files of others
        if shared:
            what = "it is" if entry == path else f"its folder {entry} is"
            return (
                f"{what} writable by others (mode {stat.S_IMODE(status.st_mode):04o})",
                f"If it is yours, chmod go-w {shlex.quote(str(entry))}",
            )
    return None


def make_private_folder(folder: Path) -> None:
    """Create a folder for libraries, and its parents, that others may read but not write.

    Raises:
        EnvironmentMissing: Others can write the folder, or one above it: what is built there would not be loaded.
        OSError: It cannot be created.
    """
    for entry in reversed((folder, *folder.parents)):
        if not entry.exists():
            entry.mkdir(mode=0o755, exist_ok=True)
            if sys.platform != "win32":
                entry.chmod(stat.S_IMODE(entry.stat().st_mode) & ~0o022)  # a umask of 002 lets the group write
    who = writable_by_others(folder.resolve())
    if who is not None:
        raise EnvironmentMissing(
            f"{folder}: a library there would not be loaded: {who[0]}", remedy=f"{who[1]}, or choose another with -o"
        )


def checksum_path(library: Path) -> Path:
    """The file beside a library that holds its SHA-256, as `sha256sum` writes it."""
    return library.with_name(library.name + ".sha256")


def write_checksum(library: Path) -> None:
    """Write the checksum file. Raises ArtifactError as `files.atomic_path` does."""
    write_text(checksum_path(library), f"{sha256(library)}  {library.name}\n")


def _stated(library: Path) -> str | None:
    try:
        words = checksum_path(library).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    return words[0].lower() if words else ""
