"""Registration with `tensorrt.plugin`: register, autotune and aot_impl for every plugin of `operators`.

TensorRT's decorators read a function's signature, so each gets one made from the plugin's description.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tmdeploy.errors import EnvironmentMissing, UnsupportedModel
from tmdeploy.lazy import require
from tmdeploy.tensorrt.plugin.launch import LAUNCHES, Launch, Tensor, check_launch
from tmdeploy.tensorrt.plugin.operators import NAMESPACE, PLUGIN_OPS, SETTINGS, PluginOp, type_combinations
from tmdeploy.tensorrt.plugin.ptx import PtxLibrary

_REMEDY = "Use TensorRT 10.9 or newer, or the C++ plugin library"


def register_plugins(library: PtxLibrary | None = None) -> None:
    """Register the plugins with TensorRT, once a process; later calls change nothing.

    Args:
        library: Where the kernels come from; None takes the installed PTX and the first GPU.

    Raises:
        EnvironmentMissing: No TensorRT, one without ahead-of-time Python plugins, or no PTX.
    """
    trt = require("tensorrt", purpose="building an engine")
    if not hasattr(trt, "QuickPluginCreationRequest"):
        raise EnvironmentMissing("this TensorRT has no ahead-of-time Python plugins", remedy=_REMEDY)
    trtp = require("tensorrt.plugin", purpose="building an engine")
    if hasattr(trtp.op, NAMESPACE):
        return
    kernels = PtxLibrary() if library is None else library
    for plugin in PLUGIN_OPS:
        trtp.register(plugin.plugin_id)(_describe(plugin, trt, trtp))
        trtp.autotune(plugin.plugin_id)(_combine(plugin, trtp))
        trtp.aot_impl(plugin.plugin_id)(_implement(plugin, trt, trtp, kernels))


def _with_signature(
    function: Callable[..., Any], names: tuple[str, ...], annotations: dict[str, Any], returns: Any
) -> Callable[..., Any]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(name, kind, annotation=annotations.get(name, inspect.Parameter.empty)) for name in names
    ]
    signature = inspect.Signature(parameters, return_annotation=returns)
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _annotations(plugin: PluginOp, trtp: Any) -> dict[str, Any]:
    # not numpy.typing.NDArray, whose spelling some versions of TensorRT and NumPy disagree on
    return dict.fromkeys(plugin.inputs, trtp.TensorDesc) | {SETTINGS: np.ndarray[Any, np.dtype[np.int32]]}


def _describe(plugin: PluginOp, trt: Any, trtp: Any) -> Callable[..., Any]:
    """Shapes and types of the outputs."""

    def describe(*inputs: Any, **_: Any) -> tuple[Any, ...]:
        sizes: dict[str, Any] = {}
        types = {"int32": trt.int32, "int64": trt.int64, "float32": trt.float32}
        for tensor, value in zip(plugin.tensors, inputs, strict=True):
            types.setdefault(tensor.type, value.dtype)
            for position, symbol in enumerate(tensor.dims):
                sizes.setdefault(symbol, value.shape_expr[position])
        return tuple(
            trtp.from_shape_expr(tuple(sizes[symbol] for symbol in tensor.dims), types[tensor.type])
            for tensor in plugin.spec.outputs
        )

    returns: Any = tuple[(trtp.TensorDesc,) * len(plugin.outputs)]  # type: ignore[misc]
    return _with_signature(describe, (*plugin.inputs, SETTINGS), _annotations(plugin, trtp), returns)


def _combine(plugin: PluginOp, trtp: Any) -> Callable[..., Any]:
    """Types the kernels take. No tactics: which kernel is best is known from the shapes."""

    def combine(*_: Any) -> list[Any]:
        return [trtp.AutoTuneCombination(types, "LINEAR") for types in type_combinations(plugin)]

    returns = list[trtp.AutoTuneCombination]
    return _with_signature(combine, (*plugin.inputs, "outputs"), {}, returns)


def _implement(plugin: PluginOp, trt: Any, trtp: Any, kernels: PtxLibrary) -> Callable[..., Any]:
    """Name and PTX of the kernel, how to launch it, and its extra arguments."""

    def implement(*arguments: Any) -> tuple[str, str, Any, Any]:
        inputs, settings = arguments[: len(plugin.inputs)], arguments[len(plugin.inputs)]
        attributes = dict(zip(plugin.settings, settings.tolist(), strict=True))
        tensors = tuple(_tensor(trt, description) for description in inputs)
        file = kernels.file(plugin.op)
        launch = LAUNCHES[plugin.op](trtp, file.layout, tensors, attributes)
        module = file.modules.get(launch.entry)
        if module is None:
            raise UnsupportedModel(f"no kernel {launch.entry}", remedy=f"{_REMEDY}, for {tensors[0].dtype} data")
        check_launch(launch, module.parameters, len(plugin.inputs), len(plugin.outputs), module.threads)
        return module.entry, module.text, *_launch_parameters(trtp, launch)

    names = (*plugin.inputs, SETTINGS, "outputs", "tactic")
    returns = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]
    return _with_signature(implement, names, _annotations(plugin, trtp), returns)


def _tensor(trt: Any, description: Any) -> Tensor:
    names = {trt.float32: "f32", trt.float16: "f16", trt.bfloat16: "bf16"}
    shape = tuple(description.shape_expr)
    extents = description.shape
    most = tuple(extents.max) if extents.is_dynamic else tuple(extents)
    return Tensor(shape, tuple(int(extent) for extent in most), names.get(description.dtype))


def _launch_parameters(trtp: Any, launch: Launch) -> tuple[Any, Any]:
    parameters = trtp.KernelLaunchParams()
    parameters.grid_x = launch.grid
    parameters.block_x = launch.threads
    parameters.shared_mem = launch.shared_bytes
    extras = trtp.SymIntExprs(len(launch.extras))
    for position, value in enumerate(launch.extras):
        extras[position] = trtp.SymInt32(value)
    return parameters, extras
