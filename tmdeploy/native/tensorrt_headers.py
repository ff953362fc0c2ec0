"""TensorRT's C++ headers, which NVIDIA's wheels lack."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.headers import check_headers
from tmdeploy.native.library import cache_folder
from tmdeploy.native.trust import make_private_folder
from tmdeploy.system.child import last_words, run_python

HEADER = "NvInferRuntime.h"
ROOT_VARIABLE = "TENSORRT_ROOT"
# A small wheel that carries NVIDIA's headers of TensorRT 10.14 (Apache-2.0); the SDK itself weighs gigabytes.
WHEEL = "kernel-lens==2.0.1"
WHEEL_SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"
_PIP = "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"
_INSIDE_WHEEL = "kernel_lens/include/tensorrt/"
_SYSTEM = ("/usr/local/tensorrt", "/usr", "/opt/tensorrt")
_BY_HAND = f"Unpack a TensorRT release and set {ROOT_VARIABLE} to its folder"


def find_tensorrt_headers() -> Path | None:
    """The folder of NvInferRuntime.h: from TENSORRT_ROOT, the system, or an earlier download.

    Raises:
        EnvironmentMissing: TENSORRT_ROOT names a folder without it.
    """
    named = os.environ.get(ROOT_VARIABLE)
    if named:
        for folder in _inside(Path(named)):
            return folder
        raise EnvironmentMissing(f"{ROOT_VARIABLE} names {named}, where there is no {HEADER}", remedy="Correct it")
    for place in (*map(Path, _SYSTEM), downloaded_headers()):
        for folder in _inside(place):
            check_headers(folder / HEADER)
            return folder
    return None


def downloaded_headers() -> Path:
    """The folder that `download_tensorrt_headers` fills."""
    return cache_folder().parent / "tensorrt-headers-10.14"


def download_tensorrt_headers() -> Path:
    """Take the headers from a pinned wheel of the package index; nothing of it is installed or run.

    Returns:
        The folder of NvInferRuntime.h.

    Raises:
        EnvironmentMissing: The wheel is unavailable, or its checksum differs from the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="tmdeploy-headers-") as temporary:
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
        done = run_python(_PIP, "download", *options, "--dest", temporary, WHEEL)
        wheel = next(Path(temporary).glob("*.whl"), None)
        if done.returncode != 0 or wheel is None:
            raise EnvironmentMissing(f"pip cannot download {WHEEL}: {last_words(done)}", remedy=_BY_HAND)
        return _unpack(wheel, downloaded_headers())


def missing_headers() -> EnvironmentMissing:
    """The error to raise where `find_tensorrt_headers` found none."""
    return EnvironmentMissing(
        "building the plugin library needs TensorRT's headers",
        remedy=f"Add --fetch-headers to take them from the wheel {WHEEL}. Or: {_BY_HAND}",
    )


def _inside(folder: Path) -> Iterator[Path]:
    include = folder / "include"
    for candidate in (include, folder, include / "x86_64-linux-gnu", include / "aarch64-linux-gnu"):
        if (candidate / HEADER).is_file():
            yield candidate


def _unpack(wheel: Path, target: Path) -> Path:
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise EnvironmentMissing(f"{wheel.name} is not the file that was checked", remedy=_BY_HAND)
    make_private_folder(target)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(_INSIDE_WHEEL) and name.endswith(".h")]
        # the probed header last: a folder that has it is complete
        for name in sorted(names, key=lambda item: item.endswith(f"/{HEADER}")):
            (target / Path(name).name).write_bytes(archive.read(name))
    return target
