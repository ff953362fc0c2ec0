"""TensorRT's own objects: the parsed network and the builder's configuration."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tmdeploy.errors import CheckFailed, ExportError, UsageError
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.plugin import require_plugin_layers
from tmdeploy.tensorrt.record.profiles import ScheduleRange
from tmdeploy.tensorrt.record.sidecar import PtxRecord, Tensor, Vehicle
from tmdeploy.tensorrt.sdk.flavor import Flavor, Log, Toolkit

_HARDWARE = {"ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}
_VERBOSITY = {"none": "NONE", "layer-names-only": "LAYER_NAMES_ONLY", "detailed": "DETAILED"}


@dataclass(frozen=True)
class Prepared:
    """A graph ready for the parser.

    Attributes:
        model: Only ops the parser knows.
        images: Name of the image input.
        precision: fp32, tf32, fp16 or bf16; of a quantised file, what is not quantised.
        quantized: int8 or fp8; None for any other file.
        schedule: Range of the runtime schedule; None: it is a constant.
        vehicle: What carries the ops of the domain.
        plugin_nodes: Names of the nodes that have to become plugin layers.
        ptx: Kernels that ahead-of-time plugins bring.
        deciding: Names of the nodes that compute for planners alone: metric, scores.
        notes: Sentences for the user.
    """

    model: onnx.ModelProto
    images: str
    precision: str
    quantized: str | None
    schedule: ScheduleRange | None
    vehicle: Vehicle
    plugin_nodes: tuple[str, ...]
    ptx: tuple[PtxRecord, ...]
    deciding: tuple[str, ...]
    notes: tuple[str, ...]


def parse_network(prepared: Prepared, builder: Any, toolkit: Toolkit, log: Log, *, path: Path) -> tuple[Any, Any]:
    """Parse into a strongly typed network.

    Returns:
        Network and parser; the network refers to weights that the parser owns.

    Raises:
        ExportError: The parser refuses a node, or made something else than a plugin layer of a plugin node.
    """
    module = toolkit.module
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log.logger)
    if not parser.parse(prepared.model.SerializeToString()):
        raise ExportError(
            f"{toolkit.title} refuses the graph ({_parser_reason(parser, log)})",
            path=path,
            remedy=plugin_remedy(prepared.vehicle),
        )
    try:
        require_plugin_layers(network, prepared.plugin_nodes)
    except CheckFailed as failed:
        raise ExportError(
            f"{toolkit.title}: {failed.message}", path=path, remedy=plugin_remedy(prepared.vehicle)
        ) from None
    return network, parser


def configure(prepared: Prepared, request: BuildRequest, builder: Any, toolkit: Toolkit) -> Any:
    """Flags, pools and profiles.

    Raises:
        UsageError: A target that this TensorRT-RTX does not know.
        ExportError: TensorRT refuses a profile.
    """
    module, options = toolkit.module, request.options
    config = builder.create_builder_config()
    flags = module.BuilderFlag
    config.clear_flag(flags.TF32)  # on by default, and it changes plans
    wanted = {
        flags.TF32: prepared.precision == "tf32",
        flags.VERSION_COMPATIBLE: options.version_compatible,
        flags.STRIP_PLAN: options.strip_weights,  # implies REFIT_IDENTICAL where no way of refitting is named
        flags.REFIT: options.refittable,
        flags.WEIGHT_STREAMING: options.weight_streaming,
    }
    for flag, on in wanted.items():
        if on:
            config.set_flag(flag)
    config.profiling_verbosity = getattr(module.ProfilingVerbosity, _VERBOSITY[options.profiling_verbosity])
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    if options.hardware_compatible != "none":
        level = getattr(module.HardwareCompatibilityLevel, _HARDWARE[options.hardware_compatible])
        config.hardware_compatibility_level = level
    if toolkit.flavor is Flavor.RTX:
        _set_targets(config, request.target_sm, module)
    if prepared.vehicle is Vehicle.LIBRARY and request.embed_plugin and request.plugin is not None:
        config.plugins_to_serialize = [str(request.plugin.resolve())]
    for number, profile in enumerate(_profiles(prepared, request, builder)):
        if config.add_optimization_profile(profile) < 0:
            raise ExportError(
                f"{toolkit.title} refuses profile {number} ({request.profiles[number]})", path=request.model
            )
    return config


def describe(network: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of a network."""
    ports = []
    for count, get in ((network.num_inputs, network.get_input), (network.num_outputs, network.get_output)):
        tensors = [get(index) for index in range(count)]
        ports.append(
            tuple(
                Tensor(
                    name=tensor.name,
                    type=tensor.dtype.name.lower(),
                    shape=tuple(tensor.shape),
                    shape_input=bool(tensor.is_shape_tensor),
                )
                for tensor in tensors
            )
        )
    return ports[0], ports[1]


def targets(module: Any) -> tuple[str, ...]:
    """GPUs this TensorRT-RTX builds for: `sm_75`, ..."""
    return tuple(f"sm_{name[2:]}" for name in dir(module.ComputeCapability) if name[:2] == "SM" and name[2:].isdigit())


def plugin_remedy(vehicle: Vehicle) -> str | None:
    """What to do when a build with plugins fails; None for one without."""
    return {
        Vehicle.AOT: "Build standard ops with --plugins none, or give the C++ plugin library with --plugin",
        Vehicle.LIBRARY: "Build the plugin library against this TensorRT, or leave out --plugin",
        Vehicle.NONE: None,
    }[vehicle]


def _profiles(prepared: Prepared, request: BuildRequest, builder: Any) -> list[Any]:
    shape = next(value for value in prepared.model.graph.input if value.name == prepared.images).type.tensor_type.shape
    rest = tuple(side.dim_value for side in shape.dim[1:])
    made = []
    for batch in request.profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(prepared.images, (batch.min, *rest), (batch.opt, *rest), (batch.max, *rest))
        if prepared.schedule is not None:
            schedule = prepared.schedule
            profile.set_shape_input(schedule.kind, list(schedule.min), list(schedule.opt), list(schedule.max))
        made.append(profile)
    return made


def _set_targets(config: Any, wanted: tuple[str, ...], module: Any) -> None:
    if not wanted:
        return
    known = targets(module)
    for name in wanted:
        if name not in known:
            raise UsageError(f"--target-sm {name}: unknown here", remedy=f"Choose from: {', '.join(known)}")
    if len(set(wanted)) != len(wanted):
        raise UsageError(f"--target-sm {','.join(wanted)}: names a target twice")
    config.num_compute_capabilities = len(wanted)
    for index, name in enumerate(wanted):
        config.set_compute_capability(getattr(module.ComputeCapability, f"SM{name.removeprefix('sm_')}"), index)


def _parser_reason(parser: Any, log: Log) -> str:
    if parser.num_errors == 0:
        return log.reason()
    error = parser.get_error(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where = f"node '{error.node_name()}', {error.node_operator()}: " if error.node_name() else ""
    more = f"; and {parser.num_errors - 1} more" if parser.num_errors > 1 else ""
    return f"{where}{' '.join(error.desc().split())}{more}"
