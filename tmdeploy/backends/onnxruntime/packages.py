"""ONNX Runtime's packages for GPUs: which is installed, whether a provider of it loads, and what to do if not.

All packages of ONNX Runtime install the same Python package, `onnxruntime`, so that two of them overwrite each other.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import re
import subprocess
from types import FunctionType
from typing import Any

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.system.child import last_words, run_python

OLDEST = "1.20"  # supported; pyproject.toml says the same
_FIRST_WITH_OPSET = {22: "1.21", 23: "1.23"}
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
INSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
_TIMEOUT_S = 300  # a driver that compiles PTX for a new GPU takes its time

# In a process of its own: there ONNX Runtime may say on stderr why, and may crash.
_TRIAL = """
import json, sys
from tmdeploy.backends.onnxruntime.packages import try_provider
print(json.dumps(try_provider(sys.argv[1], int(sys.argv[2]))))
"""


def oldest_runtime(opset: int) -> str:
    """The first version of ONNX Runtime, of those that are supported, that reads files of an opset from 18 to 23."""
    return _FIRST_WITH_OPSET.get(opset, OLDEST)


def installed_packages() -> dict[str, str]:
    """Distributions that install `onnxruntime`, with their versions."""
    names = sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", ())))
    return {name: importlib.metadata.version(name) for name in names}


def clash() -> str | None:
    """Says which packages overwrite each other; None if there is one at most."""
    found = installed_packages()
    if len(found) < 2:
        return None
    return f"{' and '.join(f'{name} {version}' for name, version in found.items())} overwrite each other's files"


def load_libraries(runtime: Any, provider: str) -> None:
    """Load what a provider links from the wheels of CUDA, cuDNN and TensorRT, where they are installed.

    The dynamic linker does not look into site-packages. What is missing shows when the provider is loaded.
    """
    preload = getattr(runtime, "preload_dlls", None)  # since 1.21
    if preload is not None:
        # It prints what it does not find. Replacing stdout would silence the other threads too, and lose it if two do.
        muted = {**preload.__globals__, "print": lambda *_, **__: None}
        FunctionType(preload.__code__, muted, preload.__name__, preload.__defaults__, preload.__closure__)()
    if provider == TENSORRT:
        with contextlib.suppress(Exception):
            importlib.import_module("tensorrt")


def check_offered(runtime: Any, provider: str) -> None:
    """Refuse an ONNX Runtime that was built without the provider.

    Raises:
        EnvironmentMissing: It was.
    """
    offered = runtime.get_available_providers()
    if provider in offered:
        return
    both = clash()
    raise EnvironmentMissing(
        f"the installed ONNX Runtime {runtime.__version__} was built without {provider}; it has {', '.join(offered)}"
        + (f" ({both})" if both is not None else ""),
        remedy=f"Install the package for GPUs in its place: {INSTALL}",
    )


def missing(runtime: Any, provider: str, reason: str) -> EnvironmentMissing:
    """The error for a provider that is in the package, but does not start.

    Args:
        runtime: The package.
        provider: Its name.
        reason: The result of `telling`.
    """
    return EnvironmentMissing(f"ONNX Runtime's {provider} does not start ({reason})", remedy=_remedy(runtime, reason))


def trial(provider: str) -> str:
    """Try a provider in another process.

    Returns:
        Version, that it ran, and which packages overwrite each other.

    Raises:
        EnvironmentMissing: It is not in the package, or does not start.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    import onnxruntime

    check_offered(onnxruntime, provider)
    reason = reason_of(provider)
    if reason is not None:
        raise missing(onnxruntime, provider, reason)
    both = clash()
    return f"{onnxruntime.__version__}, model ran" + (f"; but {both}" if both is not None else "")


def reason_of(provider: str, device_id: int = 0) -> str | None:
    """Why a provider does not start, tried in another process; None if it ran a model there."""
    try:
        done = run_python(_TRIAL, provider, str(device_id), timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no answer in {_TIMEOUT_S} s"
    if done.returncode == 0 and json.loads(done.stdout.splitlines()[-1]):
        return None
    return telling(done.stderr) or last_words(done)


def try_provider(provider: str, device_id: int = 0) -> bool:
    """Run 1 + 1 there, with ONNX Runtime's own messages on stderr; False if it ran elsewhere."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    load_libraries(onnxruntime, provider)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "try", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=[(provider, {"device_id": str(device_id)})], enable_fallback=0
    )
    if provider not in session.get_providers():
        return False
    (result,) = session.run(None, {"x": np.ones(2, np.float32)})
    if result.tolist() != [2.0, 2.0]:
        raise RuntimeError("1 + 1 is not 2")
    return True


def telling(text: str) -> str:
    """The part of ONNX Runtime's messages that says what is wrong; empty if there is none."""
    for pattern in (
        r"Failed to load library \S+ with error: (.+)",
        r"(CUDA failure \d+: [^;\n]+)",
        r"((?:Unknown provider|Invalid TensorRT EP) option: \S+?)\.?$",
        r"(cuDNN is unavailable[^\n]*)",
    ):
        found = re.search(pattern, text, re.MULTILINE)
        if found is not None:
            return re.sub(r"\x1b\[[0-9;]*m", "", found[1]).strip().rstrip(".; ")
    return ""


def _remedy(runtime: Any, reason: str) -> str:
    cuda = str(getattr(runtime, "cuda_version", "")).partition(".")[0] or "12"
    tensorrt = re.search(r"libnv(?:infer|onnxparser)\w*\.so\.(\d+)", reason)
    if tensorrt is not None:
        return (
            f"It needs TensorRT {tensorrt[1]}, no other: pip install 'tensorrt-cu{cuda}~={tensorrt[1]}.0', "
            "or put its libraries on LD_LIBRARY_PATH"
        )
    if "libcuda.so" in reason or "CUDA failure" in reason:
        return "Run it on a machine with an NVIDIA GPU and a driver that is new enough (nvidia-smi)"
    if "cannot open shared object file" in reason or "cuDNN" in reason:
        install = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        return f"It needs CUDA {cuda} and cuDNN 9: {install}, or put them on LD_LIBRARY_PATH"
    if "option: " in reason:
        return "Install a newer ONNX Runtime: pip install --upgrade onnxruntime-gpu"
    return "tmdeploy doctor says more"
