"""The GPU of this machine, and the versions around it."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from typing import Any

from .stop import MISSING, CheckError


def require_gpu() -> None:
    """Fail with one line where there is no GPU that PyTorch can use."""
    try:
        import torch
    except ImportError as error:
        raise CheckError("gpu_check needs PyTorch with CUDA", MISSING) from error
    if not torch.cuda.is_available():
        raise CheckError(f"gpu_check needs a GPU: PyTorch {torch.__version__} sees none", MISSING)


def machine() -> dict[str, Any]:
    """GPU, driver and versions."""
    import torch

    driver = "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().split("\n")[0]  # noqa: S603 - arguments are the project's own
    return {
        "gpu": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
