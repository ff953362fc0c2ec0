"""PyTorch to ONNX. Needs torch, on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tmdeploy.export.request import ExportRequest, FileForm
from tmdeploy.lazy import called_as_verb

if TYPE_CHECKING:
    from tmdeploy.export.run import export_checkpoint

__all__ = ["ExportRequest", "FileForm", "export_checkpoint"]

called_as_verb(__name__)


def __getattr__(name: str) -> object:
    if name == "export_checkpoint":
        from tmdeploy.export.run import export_checkpoint

        return export_checkpoint
    raise AttributeError(f"module 'tmdeploy.export' has no attribute '{name}'")
