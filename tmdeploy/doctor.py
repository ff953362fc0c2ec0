"""What is installed on this machine, which backends work, and what to install for the others."""

from __future__ import annotations

import functools
import importlib
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.lazy import install_command
from tmdeploy.native.library import NativeLibrary, ort_library
from tmdeploy.system.machine import cpu_name, gpu_name, memory_gib, package_version, usable_cores

if TYPE_CHECKING:
    from tmdeploy.backends.base import BackendInfo

_PACKAGES = (
    *("numpy", "onnx", "onnx-ir", "onnxruntime", "pillow", "torch", "onnxscript", "safetensors"),
    *("openvino", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13"),
)


@dataclass(frozen=True)
class BackendState:
    """Whether a backend works here.

    Attributes:
        name: Name for tables.
        works: It ran and gave the right result; for TensorRT, it made a builder.
        detail: Version, or what is missing.
        remedy: What to install; empty if it works.
    """

    name: str
    works: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Environment:
    """This machine."""

    python: str
    platform: str
    cpu: str
    cores: int
    memory_gib: float
    gpu: str
    packages: dict[str, str | None]
    backends: tuple[BackendState, ...]

    @property
    def usable(self) -> bool:
        """Whether the embedded default works."""
        return self.backends[0].works


def examine() -> Environment:
    """Examine this machine: every installed backend runs a tiny model, TensorRT makes a builder."""
    return Environment(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_gib=memory_gib(),
        gpu=gpu_name(),
        packages={name: package_version(name) for name in _PACKAGES},
        backends=(
            _try("ONNX Runtime (CPU)", _run_onnxruntime, "pip install onnxruntime", package="onnxruntime"),
            _native_ops(),
            *_onnxruntime_gpus(),
            _try("OpenVINO", _run_openvino, install_command("openvino"), package="openvino"),
            _openvino_ops(),
            _try("PyTorch", _run_torch, install_command("export"), package="torch"),
            _try("export", _check_export, install_command("export"), package="onnxscript"),
            *_tensorrts(),
            *_extensions(),
        ),
    )


def _try(name: str, run: Callable[[], str], remedy: str, *, package: str) -> BackendState:
    """Try a backend. `remedy` installs it; `package` is to be reinstalled if it is there and fails."""
    try:
        return BackendState(name, True, run())
    except ModuleNotFoundError as error:
        return BackendState(name, False, f"package '{error.name}' is not installed", remedy)
    except EnvironmentMissing as error:
        return BackendState(name, False, error.message, error.remedy or remedy)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return BackendState(name, False, f"installed, but fails: {reason}", f"pip install --force-reinstall {package}")


def _tensorrts() -> tuple[BackendState, ...]:
    from tmdeploy.tensorrt.sdk import trial
    from tmdeploy.tensorrt.sdk.flavor import Flavor

    return tuple(
        _try(
            flavor.label,
            functools.partial(trial.try_builder, flavor),
            flavor.install,
            package=flavor.distribution,
        )
        for flavor in Flavor
    )


def _extensions() -> tuple[BackendState, ...]:
    """Backends of other distributions: whether their modules can be imported."""
    from tmdeploy.backends import BACKENDS

    def look(info: BackendInfo) -> str:
        importlib.import_module(info.module)
        return info.purpose

    return tuple(
        _try(info.name, functools.partial(look, info), "Mend its distribution", package=info.module.partition(".")[0])
        for info in BACKENDS.installed()
    )


def _onnxruntime_gpus() -> tuple[BackendState, ...]:
    from tmdeploy.backends.onnxruntime import packages

    return tuple(
        _try(
            f"ONNX Runtime ({name})",
            functools.partial(packages.trial, provider),
            packages.INSTALL,
            package="onnxruntime-gpu",
        )
        for name, provider in (("CUDA", packages.CUDA), ("TensorRT", packages.TENSORRT))
    )


def _native_ops() -> BackendState:
    from tmdeploy.native.build import load_problem
    from tmdeploy.native.library import BUILD_COMMAND, has_cuda_kernels, packaged_reason

    reason = packaged_reason()
    remedy, without = BUILD_COMMAND, ""
    if reason.is_file():
        remedy = "Mend that, and install tmdeploy from its sources again"
        without = f" (the wheel was built without one: {reason.read_text(encoding='utf-8').strip().rstrip('.')})"
    state = _library_state("native ops", remedy, ort_library, load_problem, without=without)
    if not state.works:
        return state
    kernels = "CPU and CUDA" if has_cuda_kernels(Path(state.detail)) else "CPU"
    return replace(state, detail=f"{state.detail}, kernels for {kernels}")


def _openvino_ops() -> BackendState:
    from tmdeploy.native.openvino import BUILD_COMMAND, openvino_library, openvino_problem

    return _library_state("native ops (OpenVINO)", BUILD_COMMAND, openvino_library, openvino_problem)


def _library_state(
    name: str,
    remedy: str,
    find: Callable[[], NativeLibrary | None],
    problem_of: Callable[[Path], str | None],
    *,
    without: str = "",
) -> BackendState:
    try:
        library = find()
    except EnvironmentMissing as error:
        return BackendState(name, False, error.message, error.remedy or remedy)
    if library is None:
        return BackendState(name, False, f"no library{without}: function bodies run instead", remedy)
    problem = problem_of(library.path)
    if problem is not None:
        return BackendState(name, False, f"{library.path} does not load: {problem}", remedy)
    return BackendState(name, True, str(library.path))


def _run_onnxruntime() -> str:
    """Run a reduction step as in exported files, at the default optimisation level: some versions cannot load it."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    from tmdeploy.ops import DOMAIN, VERSION
    from tmdeploy.ops.bodies import function_body

    metric = helper.make_tensor_value_info("metric", TensorProto.FLOAT, ["batch", "tokens", 2])
    slots = helper.make_tensor_value_info("slots", TensorProto.INT64, ["slots"])
    out = helper.make_tensor_value_info("map", TensorProto.INT32, None)
    node = helper.make_node("TokenMatch", ["metric", "slots"], ["map", "index", "sim"], domain=DOMAIN)
    model = helper.make_model(
        helper.make_graph([node], "try", [metric, slots], [out]),
        functions=[function_body("TokenMatch", {}, 20)],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokens = np.array([[[9, 9], [1, 0], [1, 0.1], [0, 1], [1, 1]]], np.float32)
    (plan,) = session.run(None, {"metric": tokens, "slots": np.arange(4)})
    if plan.tolist() != [[0, 2, 2, 3, 1]]:  # the third token, in A, is most similar to the second, in B
        raise RuntimeError(f"a reduction step gave the plan {plan.tolist()}")
    return f"{onnxruntime.__version__}, reduction step of opset 20 ran"


def _run_openvino() -> str:
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([2], np.float32)
    compiled = openvino.compile_model(openvino.Model([ops.add(x, x)], [x]), "CPU")
    if compiled([np.ones(2, np.float32)])[0].tolist() != [2.0, 2.0]:
        raise RuntimeError("1 + 1 is not 2")
    return f"{openvino.__version__.partition('-')[0]}, model ran"


def _run_torch() -> str:
    import torch

    if (torch.ones(2) + torch.ones(2)).tolist() != [2.0, 2.0]:
        raise RuntimeError("1 + 1 is not 2")
    return f"{torch.__version__}, {torch.get_num_threads()} threads" + (", CUDA" if torch.cuda.is_available() else "")


def _check_export() -> str:
    import onnxscript
    import torch

    return f"torch {torch.__version__}, onnxscript {onnxscript.__version__}"
