"""`tmdeploy refit`: weights for an engine that was built without them, or other ones for one that takes any.

TensorRT finds weights by their names in the ONNX graph that it parsed, so the file is prepared as it was for the build:
same precision, same schedule, same lowering.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tmdeploy.errors import ArtifactError, ExportError, UsageError
from tmdeploy.graph.fingerprint import graph_sha256
from tmdeploy.system.files import atomic_path, check_outputs, sha256
from tmdeploy.system.progress import Progress, silent
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.build.run import BuildResult, prepare
from tmdeploy.tensorrt.build.source import load_source
from tmdeploy.tensorrt.record.layers import LayerFile, read_layers_file, write_layers
from tmdeploy.tensorrt.record.sidecar import (
    EngineRecord,
    RefitRecord,
    Vehicle,
    build_again,
    engine_files,
    sidecar_path,
    write_sidecar,
)
from tmdeploy.tensorrt.run.compatibility import Fit, check_fit, read_engine
from tmdeploy.tensorrt.run.opening import open_engine
from tmdeploy.tensorrt.sdk.flavor import Log

_NAMED = 3


@dataclass(frozen=True)
class RefitRequest:
    """Weights for an engine.

    Attributes:
        engine: The engine.
        model: The `.onnx` with the weights.
        output: The engine to write; may be the same file.
        other_weights: The file is not the one that the engine was built from.
        command: What the user typed, for the sidecar.
    """

    engine: Path
    model: Path
    output: Path
    other_weights: bool = False
    command: str = ""

    @property
    def reads(self) -> list[Path]:
        """What must survive: the model, and the engine unless it is refitted in place."""
        in_place = os.path.realpath(self.output) == os.path.realpath(self.engine)
        return [self.model] if in_place else [self.model, *engine_files(self.engine).values()]


def refit_engine(request: RefitRequest, tell: Progress = silent) -> BuildResult:
    """Write a complete engine with the weights of an ONNX file.

    Args:
        request: What with what.
        tell: Called with what is going on.

    Raises:
        UsageError: The engine has its weights and takes no others, or other weights were neither announced nor allowed.
        ArtifactError: A file is damaged or another one than it should be, or the output cannot be written.
        EnvironmentMissing: No GPU, or not the one or the TensorRT that the engine needs.
        ExportError: TensorRT refused the weights; the message is its first reason.
    """
    if request.output.suffix not in {".plan", ".engine"}:
        raise UsageError(f"{request.output}: an engine ends in .plan or .engine", remedy="Name it so with -o")
    check_outputs(engine_files(request.output), request.reads)
    record = read_engine(request.engine)
    _check_wanted(request, record)
    tell("reading the model", 0.0)
    model, metadata = load_source(request.model)
    _check_source(request, record)
    stored = _listing(request.engine, record)
    fit = check_fit(request.engine, stripped=True)
    prepared = prepare(model, metadata, build_request(record, request.model, request.output), fit.toolkit, fit.gpu)
    _check_graph(request, record, prepared.model)
    tell("refitting", 0.3)
    content = _refitted(request, fit, prepared.model)
    tell("writing the engine", 0.9)
    with atomic_path(request.output) as temporary:
        temporary.write_bytes(content)
        digest = sha256(temporary)
    refit = RefitRecord(
        source_name=request.model.name,
        source_sha256=sha256(request.model),
        engine_sha256=record.sha256,
        command=request.command,
    )
    changes = {"bytes": len(content), "sha256": digest, "refit": refit, "model": metadata}
    written = record.model_copy(update=changes)
    write_sidecar(request.output, written)
    listing = None if stored is None else stored.model_copy(update={"engine_sha256": digest})
    write_layers(request.output, listing)
    return BuildResult(
        schema="tmdeploy.refit/2", path=request.output, sidecar=sidecar_path(request.output), engine=written
    )


def build_request(record: EngineRecord, model: Path, output: Path) -> BuildRequest:
    """The request that prepares a graph as it was prepared for this engine."""
    ranged = record.schedule
    rest = record.precision.rpartition("+")[2]  # int8 and fp8 are in the file already
    ends = None if ranged is None else (ranged.min, ranged.opt, ranged.max)
    return BuildRequest(
        model=model,
        output=output,
        flavor=record.flavor.value,
        precision=None if rest in {"int8", "fp8"} else rest,
        keep_fp32=record.keep_fp32,
        profiles=record.profiles,
        schedule=None if ends is None else ":".join(",".join(map(str, end)) for end in ends),
        target_sm=record.target_sm,
        plugins={Vehicle.AOT: "aot", Vehicle.NONE: "none", Vehicle.LIBRARY: "auto"}[record.vehicle],
        plugin=Path(record.plugin.path) if record.plugin is not None else None,
        options=record.options,
    )


def _listing(engine: Path, record: EngineRecord) -> LayerFile | None:
    try:
        return read_layers_file(engine, engine_sha256=record.sha256)
    except ArtifactError:  # not this engine's: its loss is no reason to stop
        return None


def _check_wanted(request: RefitRequest, record: EngineRecord) -> None:
    if not record.options.strip_weights and not record.options.refittable:
        raise UsageError(
            f"{request.engine} was built with its weights, for good",
            remedy="Build it with --strip-weights to put them in later, or with --refittable to change them",
        )
    if not record.stripped and not record.options.refittable:
        raise UsageError(f"{request.engine} has its weights already, and takes no others")
    if request.other_weights and not record.options.refittable:
        raise UsageError(
            f"--other-weights: {request.engine} was built for the weights of {record.source_name} alone",
            remedy="Build it with --refittable as well",
        )


def _check_source(request: RefitRequest, record: EngineRecord) -> None:
    if request.other_weights or sha256(request.model) == record.source_sha256:
        return
    remedy = f"Give {record.source_name}"
    if record.options.refittable:
        remedy += ", or say --other-weights if you mean it"
    raise ArtifactError(f"is not the file that {request.engine.name} was built from", path=request.model, remedy=remedy)


def _check_graph(request: RefitRequest, record: EngineRecord, model: onnx.ModelProto) -> None:
    if record.graph_sha256 is None or graph_sha256(model) == record.graph_sha256:
        return
    if request.other_weights:
        raise ArtifactError(
            f"has another graph than {record.source_name}, not just other weights",
            path=request.model,
            remedy="Export it with the same method, schedule and image size, or build an engine of its own",
        )
    raise ArtifactError(
        f"gives another graph now than when {request.engine.name} was built, by tmdeploy {record.tool_version}",
        path=request.model,
        remedy=f"Refit with that version of tmdeploy, or build again: {build_again(request.engine, record)}",
    )


def _refitted(request: RefitRequest, fit: Fit, model: onnx.ModelProto) -> bytes:
    module, log = fit.toolkit.module, Log(fit.toolkit.module)
    runtime, engine = open_engine(request.engine, fit, log)
    refitter = module.Refitter(engine, log.logger)
    parser_refitter = module.OnnxParserRefitter(refitter, log.logger)
    content = model.SerializeToString()
    if not parser_refitter.refit_from_bytes(content):
        raise ExportError(
            f"{fit.toolkit.title} does not take its weights ({_reason(parser_refitter, log)})",
            path=request.model,
            remedy=f"Build again: {build_again(request.engine, fit.record)}",
        )
    if not refitter.refit_cuda_engine():
        missing = list(refitter.get_missing_weights())
        lacks = f"{len(missing)} weights are missing, among them {', '.join(missing[:_NAMED])}" if missing else None
        raise ExportError(
            f"{fit.toolkit.title} could not refit the engine ({lacks or log.reason()})",
            path=request.engine,
            remedy=f"Build again: {build_again(request.engine, fit.record)}",
        )
    serialization = engine.create_serialization_config()
    kinds = module.SerializationFlag
    serialization.clear_flag(kinds.EXCLUDE_WEIGHTS)
    remain = getattr(kinds, "INCLUDE_REFIT", None)  # 10.13 does not have it
    if remain is not None and fit.record.options.refittable:
        serialization.set_flag(remain)
    serialized = engine.serialize_with_config(serialization)
    if serialized is None:
        raise ExportError(f"{fit.toolkit.title} could not serialise the engine ({log.reason()})", path=request.engine)
    full = bytes(serialized)
    del serialized, serialization, parser_refitter, refitter, engine, runtime  # in this order
    return full


def _reason(parser_refitter: Any, log: Log) -> str:
    if parser_refitter.num_errors == 0:
        return log.reason()
    return " ".join(str(parser_refitter.get_error(0).desc()).split())
