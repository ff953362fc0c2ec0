"""Loading an engine's file into TensorRT: plugin library, trust, deserialisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tmdeploy.errors import ArtifactError, EnvironmentMissing
from tmdeploy.tensorrt.record.sidecar import build_again
from tmdeploy.tensorrt.run.compatibility import Fit
from tmdeploy.tensorrt.run.trust import check_host_code, has_host_code
from tmdeploy.tensorrt.run.validity import refusal
from tmdeploy.tensorrt.sdk.flavor import Flavor, Log


def open_engine(path: Path, fit: Fit, log: Log, *, weight_budget: int | None = None) -> tuple[Any, Any]:
    """Deserialise an engine.

    Args:
        path: The engine.
        fit: The result of `check_fit`.
        log: Receives TensorRT's messages.
        weight_budget: Bytes of streamable weights to hold on the GPU, for an engine built with --weight-streaming; None
            leaves it to TensorRT, which looks at the free memory.

    Returns:
        Runtime and engine; the runtime must outlive the engine.

    Raises:
        ArtifactError: The plugin library or the engine cannot be loaded after all, or the engine is not trusted.
        EnvironmentMissing: TensorRT-RTX says that the engine does not fit this machine.
    """
    runtime = fit.toolkit.module.Runtime(log.logger)
    if fit.plugin is not None and runtime.get_plugin_registry().load_library(str(fit.plugin)) is None:
        raise ArtifactError(f"cannot be loaded ({log.reason()})", path=fit.plugin)
    record = fit.record
    check_host_code(path, record)
    if has_host_code(record):
        runtime.engine_host_code_allowed = True
    content = path.read_bytes()
    if fit.toolkit.flavor is Flavor.RTX:
        refused = refusal(fit.toolkit.module, runtime, content, build_again(path, record))
        if refused is not None:
            raise EnvironmentMissing(f"{path}: {fit.toolkit.title} will not run it: {refused[0]}", remedy=refused[1])
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise ArtifactError(
            f"{fit.toolkit.title} does not load it ({log.reason()})",
            path=path,
            remedy=f"Build it again: {build_again(path, record)}",
        )
    if engine.streamable_weights_size > 0:  # must be set before a context exists
        automatic = engine.get_weight_streaming_automatic_budget()
        engine.weight_streaming_budget_v2 = automatic if weight_budget is None else weight_budget
    return runtime, engine
