"""ONNX Runtime's C headers, which its Python wheel lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.library import cache_folder
from tmdeploy.native.trust import make_private_folder, writable_by_others

HEADER = "onnxruntime_c_api.h"
INCLUDE_VARIABLE = "TMDEPLOY_ORT_INCLUDE"
DEBIAN_PACKAGE = "libonnxruntime-dev"
# The first Debian release that has the package; its headers (1.21) serve every runtime from 1.20 on.
DEBIAN_SUITE = "trixie"
_SYSTEM = (
    "/usr/include/onnxruntime",
    "/usr/local/include/onnxruntime",
    "/usr/local/include",
    "/opt/onnxruntime/include",
)


def find_ort_headers() -> Path | None:
    """The folder of onnxruntime_c_api.h: named by the environment, downloaded earlier, or the system's.

    Raises:
        EnvironmentMissing: The environment names a folder without it, or somebody else could have written the header.
    """
    named = os.environ.get(INCLUDE_VARIABLE)
    if named:
        for folder in _inside(Path(named)):
            return folder
        raise EnvironmentMissing(f"{INCLUDE_VARIABLE} names {named}, where there is no {HEADER}", remedy="Correct it")
    for place in (downloaded_headers(), *map(Path, _SYSTEM)):
        for folder in _inside(place):
            check_headers(folder / HEADER)
            return folder
    return None


def check_headers(header: Path) -> None:
    """Refuse headers that somebody else could have written: they are compiled into code that runs here.

    Raises:
        EnvironmentMissing: They are.
    """
    who = writable_by_others(header.resolve())
    if who is not None:
        raise EnvironmentMissing(f"the header {header} is not used: {who[0]}", remedy=who[1])


def downloaded_headers() -> Path:
    """The folder that `download_ort_headers` fills."""
    return cache_folder().parent / "onnxruntime-headers"


def download_ort_headers(target: Path | None = None) -> Path:
    """Take the headers from Debian's package, with apt's own signature checks; nothing is installed.

    Works as any user where apt-get and dpkg-deb are. The package sources are the system's; where they do not have the
    package (Debian 12), the same mirrors are asked for the release that does.

    Args:
        target: Folder to make; None takes the one where `find_ort_headers` looks.

    Returns:
        The folder of onnxruntime_c_api.h.

    Raises:
        EnvironmentMissing: There is no apt, or the package is unavailable.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise EnvironmentMissing("downloading ONNX Runtime's headers needs apt-get and dpkg-deb", remedy=_BY_HAND)
    target = target or downloaded_headers()
    make_private_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=".headers-", dir=target.parent) as scratch:
        folder = Path(scratch)
        os.chmod(folder, 0o755)  # noqa: S103 - apt drops its privileges to download
        package = _download_package(folder)
        _run(["dpkg-deb", "-x", str(package), str(folder / "root")], folder)
        found = next(_inside(folder / "root" / "usr" / "include" / "onnxruntime"), None)
        if found is None:
            raise EnvironmentMissing(f"{package.name} has no {HEADER}", remedy=_BY_HAND)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(found, target)
    return target


def missing_headers() -> EnvironmentMissing:
    """The error to raise where `find_ort_headers` found none."""
    return EnvironmentMissing(
        "building the library needs ONNX Runtime's C headers",
        remedy=f"Add --fetch-headers to take them from Debian's {DEBIAN_PACKAGE}. Or: {_BY_HAND}",
    )


_BY_HAND = f"Unpack an ONNX Runtime release and set {INCLUDE_VARIABLE} to its include folder"


def _inside(folder: Path) -> Iterator[Path]:
    for candidate in (folder, folder / "onnxruntime", folder / "onnxruntime" / "core" / "session"):
        if (candidate / HEADER).is_file():
            yield candidate


def _download_package(folder: Path) -> Path:
    (folder / "state" / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    private = ["-o", f"Dir::State={folder / 'state'}", "-o", f"Dir::Cache={folder / 'cache'}"]
    private += ["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Acquire::http::Timeout=30"]
    newer = folder / "newer.list"
    newer.write_text("".join(f"{line}\n" for line in _newer_sources()))
    other = [*private, "-o", f"Dir::Etc::sourcelist={newer}", "-o", "Dir::Etc::sourceparts=-"]
    for options in (private, other) if newer.stat().st_size else (private,):
        try:
            _run(["apt-get", "-q", *options, "update"], folder)
            _run(["apt-get", "-q", *options, "download", DEBIAN_PACKAGE], folder)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            continue
        for package in folder.glob(f"{DEBIAN_PACKAGE}_*.deb"):
            return package
    raise EnvironmentMissing(f"apt cannot download {DEBIAN_PACKAGE}", remedy=_BY_HAND)


def _newer_sources() -> list[str]:
    """The system's Debian mirrors, for the suite that has the package."""
    mirrors: list[str] = []
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    entries = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian.sources"))]
    for entry in entries:
        if not entry.is_file() or not keyring.is_file():
            continue
        for line in entry.read_text().splitlines():
            words = line.split()
            uris = words[1:] if words[:1] == ["URIs:"] else [word for word in words[1:] if "://" in word][:1]
            relevant = words[:1] in (["URIs:"], ["deb"])
            mirrors += [uri for uri in uris if relevant and uri.rstrip("/").endswith("/debian") and uri not in mirrors]
    return [f"deb [signed-by={keyring}] {mirror} {DEBIAN_SUITE} main" for mirror in mirrors]


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)  # noqa: S603
