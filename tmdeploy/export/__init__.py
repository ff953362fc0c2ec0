"""PyTorch to ONNX. Importing this package imports torch."""

from tmdeploy.export.request import ExportRequest, FileForm
from tmdeploy.export.run import export_checkpoint
from tmdeploy.export.write import ExportResult

__all__ = ["ExportRequest", "ExportResult", "FileForm", "export_checkpoint"]
