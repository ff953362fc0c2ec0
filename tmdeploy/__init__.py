"""tmdeploy: from a trained, token-merged Vision Transformer to a validated ONNX file or engine.

Importing this package needs neither torch nor a GPU; what needs torch is loaded on first use.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from tmdeploy.errors import TmdeployError, TmdeployWarning

if TYPE_CHECKING:
    from tmdeploy.api.bench import bench
    from tmdeploy.api.build import build, refit
    from tmdeploy.api.export import export
    from tmdeploy.api.infer import infer
    from tmdeploy.api.inspect import inspect
    from tmdeploy.api.models import load_card, open_runner
    from tmdeploy.api.quantize import quantize
    from tmdeploy.api.validate import validate
    from tmdeploy.api.visualize import visualize
    from tmdeploy.patching.patch import patch
    from tmdeploy.patching.stem import add_scales

# ONNX Runtime reads it once, when it is first imported. Whoever wants its telemetry can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "TmdeployError",
    "TmdeployWarning",
    "__version__",
    "add_scales",
    "bench",
    "build",
    "export",
    "infer",
    "inspect",
    "load_card",
    "open_runner",
    "patch",
    "quantize",
    "refit",
    "validate",
    "visualize",
]

# Where each name is. Packages with the name of a verb can be called (`lazy.called_as_verb`).
_PLACES = {
    **dict.fromkeys(("add_scales", "patch"), "patching"),
    **dict.fromkeys(("build", "refit"), "api.build"),
    **{name: f"api.{name}" for name in ("infer", "inspect", "visualize")},
    **dict.fromkeys(("load_card", "open_runner"), "api.models"),
}
_PACKAGES = {"bench", "export", "quantize", "validate"}


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"tmdeploy.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(f"tmdeploy.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'tmdeploy' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
