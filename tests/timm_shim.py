"""Imports timm on a machine without a CPU torchvision.

The torchvision wheel that matches a CPU torch may carry no compiled operators for it, and torchvision then fails to
import because it registers fake kernels for operators that do not exist. timm's ViTs need none of them: declaring
their names is enough. Tests only; tmdeploy itself never imports timm or torchvision.
"""

import importlib
from types import ModuleType

import torch

# kept alive: a Library that is collected takes its operators along
_LIBRARIES: list[torch.library.Library] = []
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_timm() -> ModuleType:
    """timm, after declaring what torchvision expects and has not got."""
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _LIBRARIES.append(library)
    return importlib.import_module("timm")
