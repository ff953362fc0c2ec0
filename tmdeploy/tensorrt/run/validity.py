"""TensorRT-RTX's own verdict on whether an engine will run here, from its header alone."""

from __future__ import annotations

from typing import Any

# By the name of the diagnostic: what it means, and what helps; {command} builds the engine again.
_REASONS = {
    "VERSION_MISMATCH": ("another version of TensorRT-RTX built it", "Build it again: {command}"),
    "UNSUPPORTED_CC": ("it was not built for this GPU", "Build it for this one with --target-sm: {command}"),
    "OLD_CUDA_DRIVER": ("the GPU's driver is too old for it", "Update the driver"),
    "OLD_CUDA_RUNTIME": ("CUDA is too old for it", "Update CUDA"),
    "INSUFFICIENT_GPU_MEMORY": ("the GPU has too little memory", "Free some, or build for smaller batches: {command}"),
    "MALFORMED_ENGINE": ("it is damaged", "Copy it again, in binary mode, or build it again: {command}"),
    "CUDA_ERROR": ("CUDA does not work", "See nvidia-smi, and install driver and CUDA again"),
}


def refusal(module: Any, runtime: Any, content: bytes, command: str) -> tuple[str, str] | None:
    """Ask before the engine is loaded.

    Args:
        module: TensorRT-RTX; full TensorRT has no such check.
        runtime: Its runtime.
        content: Content of the engine file.
        command: The command that rebuilds the engine.

    Returns:
        Why it will not run, with a remedy; None if it will, even if slower than another build.
    """
    validity, diagnostics = runtime.get_engine_validity(content[: runtime.engine_header_size])
    if validity != module.EngineValidity.INVALID:
        return None
    kinds = module.EngineInvalidityDiagnostics
    for name, (reason, remedy) in _REASONS.items():
        if int(diagnostics) & int(getattr(kinds, name)):
            return reason, remedy.format(command=command)
    return "TensorRT-RTX gives no reason", f"Build it again: {command}"
