"""tmdeploy: from a trained, token-merged Vision Transformer to a validated ONNX file or engine.

Importing this package needs neither torch nor a GPU; what needs torch is loaded on first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tmdeploy.errors import TmdeployError

if TYPE_CHECKING:
    from tmdeploy.export.module import export_module as export
    from tmdeploy.patching.patch import patch
    from tmdeploy.patching.stem import add_scales

# ONNX Runtime reads it once, when it is first imported. Whoever wants its telemetry can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["TmdeployError", "__version__", "add_scales", "export", "patch"]


def __getattr__(name: str) -> object:
    if name in {"add_scales", "patch"}:  # imports torch
        import tmdeploy.patching

        return getattr(tmdeploy.patching, name)
    if name == "export":  # the package, which can be called; it sets itself as this attribute
        import tmdeploy.export

        return tmdeploy.export
    raise AttributeError(f"module 'tmdeploy' has no attribute '{name}'")
