#!/usr/bin/env python3
"""Find TensorRT's headers, or fetch them; prints the folder of NvInferRuntime.h.

    python scripts/tensorrt_headers.py [--cache FOLDER] [--no-download]

Looked for in this order: TENSORRT_ROOT, the system's include folders, the cache, and at last the wheel `kernel-
lens` on the package index, which carries NVIDIA's headers of TensorRT 10.14 (Apache-2.0) and is small; the SDK
itself weighs gigabytes. Nothing of the wheel is installed or run. Exit code 3: not found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROBE = "NvInferRuntime.h"
WHEEL = "kernel-lens==2.0.1"
WHEEL_SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"
_INSIDE = "kernel_lens/include/tensorrt/"


def default_cache() -> Path:
    """Folder for fetched headers, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tmdeploy" / "tensorrt-headers-10.14"


def installed() -> Path | None:
    """Headers of an installed TensorRT."""
    root = os.environ.get("TENSORRT_ROOT")
    places = [Path(root) / "include", Path(root)] if root else []
    places += [Path("/usr/local/tensorrt/include"), Path("/usr/include/x86_64-linux-gnu"), Path("/usr/include")]
    return next((place for place in places if (place / PROBE).is_file()), None)


def fetch(cache: Path) -> Path:
    """Download the wheel and unpack its headers into `cache`.

    Raises:
        OSError: The wheel cannot be had or is not the one that was checked.
    """
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(  # noqa: S603 - arguments are the project's own
            [*command, "--only-binary", ":all:", "--dest", temporary, WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise OSError(f"pip cannot download {WHEEL}: {done.stderr.strip() or 'no wheel'}")
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != WHEEL_SHA256:
            raise OSError(f"{wheels[0].name} is not the file that was checked")
        cache.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as archive:
            names = [name for name in archive.namelist() if name.startswith(_INSIDE) and name.endswith(".h")]
            # the probed header last: a folder that has it is complete
            for name in sorted(names, key=lambda item: item.endswith("/" + PROBE)):
                (cache / Path(name).name).write_bytes(archive.read(name))
    return cache


def headers(cache: Path, *, download: bool = True) -> Path:
    """Folder of the headers.

    Raises:
        OSError: They are nowhere.
    """
    found = installed()
    if found is not None:
        return found
    if (cache / PROBE).is_file():
        return cache
    if not download:
        raise OSError("TensorRT's headers are not installed; set TENSORRT_ROOT")
    return fetch(cache)


def main() -> int:
    """Print the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--no-download", action="store_true")
    arguments = parser.parse_args()
    try:
        print(headers(arguments.cache, download=not arguments.no_download))
    except OSError as error:
        print(f"TensorRT's headers are missing: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
