"""Whether TensorRT works on this machine, tried by making a builder."""

from __future__ import annotations

from tmdeploy.errors import EnvironmentMissing
from tmdeploy.tensorrt.cuda.gpu import Gpu, find_gpu
from tmdeploy.tensorrt.plugin import PtxLibrary
from tmdeploy.tensorrt.sdk.flavor import Flavor, Log, open_toolkit


def try_builder(flavor: Flavor) -> str:
    """Make a builder.

    Returns:
        The version, what it can do here, and what is missing for running engines.

    Raises:
        EnvironmentMissing: It is not installed, loadable or supported, or makes no builder (full TensorRT: no GPU).
    """
    toolkit = open_toolkit(flavor.value, purpose="building an engine")
    gpu, lacks = _gpu("running engines" if flavor is Flavor.RTX else "building and running engines")
    if lacks is not None and flavor is Flavor.TENSORRT:  # its builder times kernels
        raise EnvironmentMissing(f"{toolkit.version} is installed; {lacks.message}", remedy=lacks.remedy)
    module, log = toolkit.module, Log(toolkit.module)
    if module.Builder(log.logger) is None:
        raise EnvironmentMissing(
            f"{toolkit.version} is installed, but makes no builder ({log.reason()})", remedy=flavor.reinstall
        )
    able = f"{toolkit.version}, a builder was made"
    if gpu is None:
        return able if lacks is None else f"{able}; {lacks.one_line()}"
    able = f"{able}; GPU: {gpu.name} ({gpu.sm})"
    return able if flavor is Flavor.RTX else f"{able}; {_plugins(gpu)}"


def _gpu(purpose: str) -> tuple[Gpu | None, EnvironmentMissing | None]:
    try:
        return find_gpu(purpose), None
    except EnvironmentMissing as error:
        return None, error


def _plugins(gpu: Gpu) -> str:
    try:
        PtxLibrary(capability=gpu.compute_capability)
    except EnvironmentMissing as error:
        return f"no ahead-of-time plugins: {error.one_line()}"
    return "PTX for the ahead-of-time plugins is here"
