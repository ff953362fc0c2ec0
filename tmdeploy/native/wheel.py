"""The native library for ONNX Runtime inside a wheel: built by `pip install .` where that can be done.

setup.py imports it where only the build tools are installed, so it uses the standard library only.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tmdeploy.errors import EnvironmentMissing, TmdeployError
from tmdeploy.native.build import build_ort, find_compiler, symbol_problem
from tmdeploy.native.headers import download_ort_headers, find_ort_headers
from tmdeploy.native.library import REFUSAL_VARIABLE, native_wanted, packaged_library, packaged_reason
from tmdeploy.system.files import write_text

TOOLS = ("cmake>=3.18", "ninja")
_ENTRY = "RegisterCustomOps"


def requirements() -> list[str]:
    """Packages that building the library needs; none if it will not be built."""
    if not native_wanted():
        return []
    try:
        find_compiler()
    except EnvironmentMissing:
        return []
    return list(TOOLS)


def put_library(native: Path) -> str | None:
    """Build the library into the folder `tmdeploy/native` of a wheel, or write there why it has none.

    The environment variable TMDEPLOY_NATIVE decides: 0 builds none, 1 insists on it.

    Args:
        native: The folder.

    Returns:
        Why there is no library; None if there is.

    Raises:
        TmdeployError: It could not be built, and TMDEPLOY_NATIVE is 1.
    """
    reason: str | None = f"{REFUSAL_VARIABLE} is 0"
    if native_wanted():
        try:
            _build(packaged_library(native).parent)
            return None
        except (TmdeployError, OSError) as error:
            if os.environ.get(REFUSAL_VARIABLE) == "1":
                raise
            reason = " ".join(str(error).split())
    write_text(packaged_reason(native), f"{reason}\n")
    return reason


def _build(folder: Path) -> None:
    find_compiler()  # before anything is downloaded
    with tempfile.TemporaryDirectory(prefix="tmdeploy-headers-") as scratch:
        headers = find_ort_headers() or download_ort_headers(Path(scratch) / "include")
        build_ort(folder, headers=headers, problem=lambda library: symbol_problem(library, _ENTRY))
