"""PyTorch to ONNX. Importing this package imports torch.

The package can be called: `tmdeploy.export(module, "file.onnx")` is `export_module`.
"""

import sys
import types

from tmdeploy.export.module import export_module
from tmdeploy.export.request import ExportRequest, FileForm
from tmdeploy.export.run import export_checkpoint
from tmdeploy.export.write import ExportResult

__all__ = ["ExportRequest", "ExportResult", "FileForm", "export_checkpoint", "export_module"]


class _Callable(types.ModuleType):
    # importing any module of this package sets tmdeploy.export to the package, so that it is what has to be callable
    __call__ = staticmethod(export_module)


sys.modules[__name__].__class__ = _Callable
