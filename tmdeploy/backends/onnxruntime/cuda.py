"""ONNX Runtime on the GPU, by its CUDA provider. No torch in here."""

from __future__ import annotations

from pathlib import Path

from tmdeploy.backends.onnxruntime.gpu import CudaTarget
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner, load_runtime

__all__ = ["load_runtime", "open_runner"]


def open_runner(
    path: Path,
    *,
    threads: int | None = None,
    model: bytes | None = None,
    name: str = "",
    native: bool = True,
    device_id: int = 0,
) -> OnnxRuntimeRunner:
    """Load an ONNX file on the GPU.

    Args:
        path: The file.
        threads: Threads for the few nodes that stay on the CPU; None leaves the default.
        model: Serialised model to load instead of the file's content.
        name: Name in tables; the file's name by default.
        native: Register the native library where there is one with kernels for CUDA; else function bodies run.
        device_id: CUDA's number of the device; CUDA_VISIBLE_DEVICES renumbers them.

    Raises:
        ArtifactError: It is empty, truncated, no ONNX file, or one that ONNX Runtime cannot run.
        EnvironmentMissing: No onnxruntime-gpu, no libraries of CUDA, no driver, no device: nothing runs on the CPU
            instead.
    """
    target = CudaTarget(native=native, device_id=device_id)
    return OnnxRuntimeRunner(path, threads=threads, model=model, name=name, target=target)
