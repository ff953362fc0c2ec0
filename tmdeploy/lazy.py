"""Imports of optional packages, with the command that installs a missing one."""

from __future__ import annotations

import importlib
from types import ModuleType

from tmdeploy.errors import EnvironmentMissing

_EXTRA = {
    "torch": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "rtx",
    "sklearn": "dev",
}


def require(name: str, *, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        name: Module to import, such as `torch` or `safetensors.torch`.
        purpose: What it is needed for, as in "exporting a checkpoint".

    Raises:
        EnvironmentMissing: The package is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        extra = _EXTRA.get(top)
        remedy = f"Install it with: pip install 'tmdeploy[{extra}]'" if extra else f"Install it with: pip install {top}"
        raise EnvironmentMissing(f"{purpose} needs the Python package '{top}'", remedy=remedy) from None
