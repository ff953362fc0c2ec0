"""PyTorch to ONNX. Importing this package imports torch."""

from tmdeploy.export.run import ExportRequest, ExportResult, export_checkpoint

__all__ = ["ExportRequest", "ExportResult", "export_checkpoint"]
