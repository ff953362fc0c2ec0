"""`build_engine`: from an ONNX file to an engine and its sidecar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx
import onnx_ir as ir
from pydantic import Field

import tmdeploy
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, ExportError, UsageError
from tmdeploy.graph.base import Pass, run_pass, run_passes
from tmdeploy.graph.fingerprint import graph_sha256
from tmdeploy.graph.fix_input import FixInput
from tmdeploy.graph.fix_shapes import FixShapes
from tmdeploy.graph.mark_plugins import PLUGIN_NAMESPACE
from tmdeploy.graph.name_nodes import NameNodes
from tmdeploy.graph.narrow_doubles import NarrowDoubles
from tmdeploy.graph.planners import deciding_nodes
from tmdeploy.graph.precision import ConvertPrecision
from tmdeploy.graph.require_input import RequireInput
from tmdeploy.native.tensorrt import BUILD_COMMAND
from tmdeploy.native.trust import checked_library
from tmdeploy.report.schemas.document import Result
from tmdeploy.system.files import atomic_path, sha256
from tmdeploy.system.progress import Progress, silent
from tmdeploy.tensorrt.build.log import by_profile, read_io, read_layers, read_memory
from tmdeploy.tensorrt.build.network import Prepared, configure, describe, parse_network, plugin_remedy
from tmdeploy.tensorrt.build.progress import Cancel, make_monitor, run_cancellable
from tmdeploy.tensorrt.build.request import BuildRequest, check_flavor, check_request
from tmdeploy.tensorrt.build.roles import node_roles
from tmdeploy.tensorrt.build.source import fixed_images, load_source
from tmdeploy.tensorrt.build.timing_cache import default_timing_cache, read_timing_cache, write_timing_cache
from tmdeploy.tensorrt.build.token_ops import lower_ops, plugin_layers
from tmdeploy.tensorrt.cuda.gpu import Gpu, find_gpu, gpu_or_none
from tmdeploy.tensorrt.record.kernels import count_kernels
from tmdeploy.tensorrt.record.layers import Layer, LayerFile, Listing, classified, write_layers
from tmdeploy.tensorrt.record.profiles import advice, check_clipping, parse_schedule
from tmdeploy.tensorrt.record.sidecar import (
    EngineRecord,
    PluginRecord,
    Vehicle,
    sidecar_path,
    step_blocks,
    write_sidecar,
)
from tmdeploy.tensorrt.run.compatibility import host_platform
from tmdeploy.tensorrt.sdk.flavor import Flavor, Log, Toolkit, open_toolkit


class BuildResult(Result):
    """What was written: the JSON document, schema `tmdeploy.build/2`, or `tmdeploy.refit/2`."""

    schema_: str = Field(default="tmdeploy.build/2", alias="schema")
    path: Path
    sidecar: Path
    record: EngineRecord = Field(alias="engine", description="what is in the sidecar")


def build_engine(request: BuildRequest, tell: Progress = silent) -> BuildResult:
    """Build an engine.

    Args:
        request: What to build.
        tell: Called with what is going on and the share that is done, also from another thread.

    Raises:
        UsageError: Options that cannot be meant, for this file or this flavor.
        ArtifactError: The file cannot be read, has nodes no engine can have, or the output cannot be written.
        EnvironmentMissing: TensorRT is not installed; for full TensorRT, there is no GPU; or there are no plugins.
        UnsupportedModel: Ahead-of-time plugins were asked for, and there is none for a node.
        ExportError: TensorRT refused the graph or failed to build; the message is its first reason.
        KeyboardInterrupt: Cancelled; nothing was written.
    """
    check_request(request)
    tell("reading the model", 0.0)
    model, metadata = load_source(request.model)
    toolkit = open_toolkit(request.flavor, purpose="building an engine")
    notes = check_flavor(request, toolkit.flavor)
    gpu = find_gpu("building with full TensorRT") if toolkit.flavor is Flavor.TENSORRT else gpu_or_none()
    prepared = prepare(model, metadata, request, toolkit, gpu)
    notes += [*prepared.notes, *advice(request.profiles)]
    start = perf_counter()
    cancel = Cancel()
    # all of it in the thread: an exception out of a signal would crash TensorRT in its calls of our logger
    content, network, log = run_cancellable(lambda: _build(prepared, request, toolkit, gpu, tell, cancel), cancel)
    seconds = perf_counter() - start
    plugin = None
    if prepared.vehicle is Vehicle.LIBRARY and request.plugin is not None:
        plugin = PluginRecord(path=str(request.plugin), sha256=sha256(request.plugin), embedded=request.embed_plugin)
    layers = read_layers(log.details)
    profiles = by_profile(layers, len(request.profiles))
    with atomic_path(request.output) as temporary:
        temporary.write_bytes(content)
        digest = sha256(temporary)
    record = EngineRecord(
        tool_version=tmdeploy.__version__,
        flavor=toolkit.flavor,
        tensorrt_version=toolkit.version,
        platform=host_platform(),
        gpu=gpu.name if gpu is not None else None,
        sm=gpu.sm if gpu is not None else None,
        target_sm=request.target_sm,
        bytes=len(content),
        sha256=digest,
        source_name=request.model.name,
        source_sha256=sha256(request.model),
        precision=_engine_precision(prepared),  # type: ignore[arg-type]  # pydantic checks the name
        keep_fp32=request.keep_fp32 if prepared.precision in {"fp16", "bf16"} else (),
        lowering="portable" if prepared.vehicle is Vehicle.NONE else "plugin",
        profiles=request.profiles,
        schedule=prepared.schedule,
        inputs=network.inputs,
        outputs=network.outputs,
        vehicle=prepared.vehicle,
        plugin=plugin,
        plugin_layers=plugin_layers(prepared.model, prepared.plugin_nodes),
        ptx=prepared.ptx,
        options=request.options,
        layers=network.layers,
        kernels=count_kernels(layers if profiles is None else profiles[0]) if layers else None,
        memory=read_memory(log.details),
        graph_sha256=graph_sha256(prepared.model),
        build_seconds=round(seconds, 3),
        command=request.command,
        notes=tuple(notes),
        model=metadata,
    )
    write_sidecar(request.output, record)
    write_layers(request.output, _layer_file(layers, prepared, record, log))
    return BuildResult(path=request.output, sidecar=sidecar_path(request.output), engine=record)


def prepare(
    model: onnx.ModelProto, metadata: ArtifactMetadata | None, request: BuildRequest, toolkit: Toolkit, gpu: Gpu | None
) -> Prepared:
    """The graph as TensorRT's parser gets it: precision, schedule, batch, lowering.

    Raises:
        UsageError: A precision or a batch that the file does not have.
        ArtifactError: A graph that no engine can be built from.
        EnvironmentMissing, UnsupportedModel: The plugins that were asked for cannot be had.
    """
    path, notes = str(request.model), []
    images = fixed_images(model, request.model)
    _check_batch(images, request, path)
    schedule = None
    if request.schedule is not None:
        if metadata is None:
            raise UsageError("--schedule-range: the file carries no tmdeploy metadata, so no schedule")
        schedule = parse_schedule(request.schedule, metadata)
        check_clipping(model, schedule, path=path)
        if schedule.clipped:
            blocks = ", ".join(map(str, schedule.clipped))
            notes.append(f"at its upper end the schedule is clipped in block {blocks}: no more is possible there")
    stored = metadata.precision if metadata is not None else _stored_precision(model)
    quantized = stored if stored in {"int8", "fp8"} else None
    if quantized is not None:
        stored = "fp32"  # the rest of it
    precision = request.precision or stored
    if stored == "fp16" and precision != "fp16":
        raise UsageError(
            f"--precision {precision}: the file is fp16 already", remedy="Export it with --precision fp32 first"
        )
    passes: list[Pass[onnx.ModelProto]] = []
    if precision in {"fp16", "bf16"} and stored == "fp32":
        steps = metadata.steps if metadata is not None else ()
        passes.append(ConvertPrecision(precision, request.keep_fp32, steps, path))
    elif precision == "tf32":
        notes.append("tf32 holds for every matrix product, the planners' too: about 3 % of images get another plan")
    if metadata is not None and metadata.schedule_input is not None:
        # TensorRT's parser knows no inputs with defaults: it takes those for constants
        passes.append((RequireInput if schedule is not None else FixInput)(metadata.schedule_input))
    sizes = {(profile.min, profile.max) for profile in request.profiles}
    if len(sizes) == 1 and all(profile.static for profile in request.profiles):
        passes.append(FixShapes({images.name: (request.profiles[0].opt,)}))
    model, changes = run_passes(model, [*passes, NameNodes()])
    deciding = _deciding(model, metadata)
    lowered = lower_ops(model, request, toolkit, gpu)
    flat, narrowed = run_pass(lowered.model, NarrowDoubles())
    notes += [*(note for change in changes for note in change.notes), *lowered.notes, *narrowed.notes]
    return Prepared(
        model=flat,
        images=images.name,
        precision=precision,
        quantized=quantized,
        schedule=schedule,
        vehicle=lowered.vehicle,
        plugin_nodes=lowered.plugin_nodes,
        ptx=lowered.ptx,
        deciding=deciding,
        notes=tuple(notes),
    )


def _layer_file(layers: tuple[Layer, ...], prepared: Prepared, record: EngineRecord, log: Log) -> LayerFile | None:
    """None where the log lists nothing, as with another profiling verbosity than detailed."""
    if not layers:
        return None
    roles, blocks = node_roles(prepared.model, prepared.deciding), step_blocks(record)
    judged = tuple(classified(layer, roles, blocks) for layer in layers)
    profiles = by_profile(judged, len(record.profiles))
    if profiles is None:
        listings: tuple[Listing, ...] = (Listing(source="build log", layers=judged),)
    else:
        listings = tuple(
            Listing(source="build log", profile=number, layers=part) for number, part in enumerate(profiles)
        )
    return LayerFile(engine_sha256=record.sha256, listings=listings, io=read_io(log.details), roles=roles)


def _deciding(model: onnx.ModelProto, metadata: ArtifactMetadata | None) -> tuple[str, ...]:
    if metadata is None or not metadata.steps:
        return ()
    graph = ir.serde.deserialize_model(model).graph
    return tuple(str(node.name) for node in deciding_nodes(graph, metadata.steps))


def _engine_precision(prepared: Prepared) -> str:
    """`fp16`, `int8` (the rest is fp32), `int8+fp16`."""
    if prepared.quantized is None:
        return prepared.precision
    return prepared.quantized if prepared.precision == "fp32" else f"{prepared.quantized}+{prepared.precision}"


@dataclass(frozen=True)
class _Described:
    inputs: Any
    outputs: Any
    layers: int


def _build(
    prepared: Prepared, request: BuildRequest, toolkit: Toolkit, gpu: Gpu | None, tell: Progress, cancel: Cancel
) -> tuple[bytes, _Described, Log]:
    module = toolkit.module
    log = Log(module, keep_details=True)
    builder = module.Builder(log.logger)
    if builder is None:
        raise ExportError(f"{toolkit.title} cannot start ({log.reason()})", path=request.model)
    if prepared.vehicle is Vehicle.LIBRARY:
        assert request.plugin is not None  # noqa: S101 - `prepare` looked
        _load_plugin(builder, request.plugin, log)
    tell("parsing the graph", 0.0)
    network, parser = parse_network(prepared, builder, toolkit, log, path=request.model)
    config = configure(prepared, request, builder, toolkit)
    cache = _attach_cache(config, request, toolkit, gpu)
    config.progress_monitor = make_monitor(module, tell, cancel)
    serialized = None if cancel else builder.build_serialized_network(network, config)
    if serialized is None:
        raise ExportError(
            f"{toolkit.title} could not build it ({log.reason()})",
            path=request.model,
            remedy=_build_remedy(log, request) or plugin_remedy(prepared.vehicle),
        )
    if cache is not None:
        write_timing_cache(cache, bytes(config.get_timing_cache().serialize()))
    inputs, outputs = describe(network)
    described = _Described(inputs, outputs, int(network.num_layers))
    del parser  # owns what the network refers to until the build is over
    return bytes(serialized), described, log


def _attach_cache(config: Any, request: BuildRequest, toolkit: Toolkit, gpu: Gpu | None) -> Path | None:
    if toolkit.flavor is not Flavor.TENSORRT or gpu is None:
        return None
    path = request.timing_cache or default_timing_cache(toolkit.version, gpu.name, gpu.sm)
    cache = config.create_timing_cache(read_timing_cache(path))
    config.set_timing_cache(cache, False)
    return path


def _load_plugin(builder: Any, plugin: Path, log: Log) -> None:
    checked = checked_library(plugin, build=BUILD_COMMAND, without="leave out --plugin")
    registry = builder.get_plugin_registry()
    handle = registry.load_library(str(checked))
    if handle is None:
        raise ArtifactError(
            f"is no plugin library that this TensorRT can load ({log.reason()})",
            path=plugin,
            remedy="Build it against this version, or leave out --plugin",
        )
    names = {creator.name for creator in registry.all_creators if creator.plugin_namespace == PLUGIN_NAMESPACE}
    if not names:
        raise ArtifactError("has no plugins of tmdeploy", path=plugin, remedy="Give tmdeploy's own plugin library")


def _check_batch(images: onnx.ValueInfoProto, request: BuildRequest, path: str) -> None:
    fixed = images.type.tensor_type.shape.dim[0]
    if not fixed.HasField("dim_value"):
        return
    for profile in request.profiles:
        if (profile.min, profile.max) != (fixed.dim_value, fixed.dim_value):
            raise UsageError(
                f"{path}: takes batch {fixed.dim_value} only, not {profile}",
                remedy=f"Build with --profile {fixed.dim_value}, or export with --dynamic-batch",
            )


def _stored_precision(model: onnx.ModelProto) -> str:
    half = sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    full = sum(tensor.data_type == onnx.TensorProto.FLOAT for tensor in model.graph.initializer)
    return "fp16" if half > full else "fp32"


def _build_remedy(log: Log, request: BuildRequest) -> str | None:
    text = " ".join(log.errors)
    if "FP32 GEMM is not supported" in text:
        return "sm_75 has no fp32 matrix products in TensorRT-RTX, and the planners need them: leave it out"
    if "HW-specific datatypes" in text:
        return "A GPU of --target-sm lacks this precision: leave it out, or choose another --precision"
    if "CUDA_SUCCESS" in text and (request.options.strip_weights or request.options.refittable):
        option = "--strip-weights" if request.options.strip_weights else "--refittable"
        return f"TensorRT-RTX needs a GPU for {option}: build on a machine with one"
    if "out of memory" in text.lower():
        return "Give a smaller --workspace or --max-batch"
    return None
