"""`export_checkpoint`: from a checkpoint to an ONNX file that has been checked against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import torch
from torch import nn

import tmdeploy
from tmdeploy.errors import ExportError, UsageError
from tmdeploy.export.passes.counts import add_runtime_schedule
from tmdeploy.export.passes.functions import attach_bodies, inline_bodies
from tmdeploy.export.passes.names import name_steps, rename_symbols
from tmdeploy.export.passes.outputs import add_step_outputs
from tmdeploy.export.passes.preprocess import fold_preprocessing
from tmdeploy.export.program import BATCH, SLOTS, build_graph
from tmdeploy.export.verify import verify_file
from tmdeploy.files import atomic_path, check_writable
from tmdeploy.metadata import METADATA_KEY, ArtifactMetadata, StepRecord, dump
from tmdeploy.models.arch import VitConfig
from tmdeploy.models.checkpoint import LoadedCheckpoint, build_model, load_checkpoint
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET
from tmdeploy.patching import Reduction, patch, reduction_of
from tmdeploy.recipe import Recipe, make_recipe
from tmdeploy.schedule import Step
from tmdeploy.validate.report import ValidationReport

_PROTOBUF_LIMIT = 2**31 - 1
OUTPUTS = ("plan", "size", "features")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        checkpoint: `.pt`, `.pth` or `.safetensors`.
        output: The `.onnx` to write.
        method: Reduction method; None takes the checkpoint's own recipe, else `none`.
        r: As `--r`.
        keep: As `--keep`.
        layers: As `--layers`.
        options: Named options of the method.
        arch: Architecture by name; None infers it from the weights.
        num_heads: Attention heads, where width / 64 is wrong.
        image_size: Side of the input, pixels; None takes the checkpoint's.
        opset: Version of the standard operators.
        precision: Of weights and activations; planners, sizes and LayerNorm statistics stay fp32.
        lowering: `custom`: nodes of domain `tmdeploy` with function bodies; `portable`: standard ops only.
        runtime_schedule: Whether `r` or `keep` is an optional graph input.
        dynamic_batch: Whether any batch size can be fed; else 1.
        with_preprocessing: Take uint8 [batch, H, W, 3] pixels and normalise in the graph.
        outputs: Extra outputs: any of `plan`, `size`, `features`.
        deterministic: Planners accumulate in float64; else float32.
        trust_checkpoint: Allow unpickling, which runs whatever code the file holds.
        verify: Compare the file with PyTorch after writing.
        verify_images: Real images to compare on, besides random ones.
    """

    checkpoint: Path
    output: Path
    method: str | None = None
    r: str | None = None
    keep: str | None = None
    layers: str | None = None
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    arch: str | None = None
    num_heads: int | None = None
    image_size: int | None = None
    opset: int = 20
    precision: Literal["fp32", "fp16"] = "fp32"
    lowering: Literal["custom", "portable"] = "custom"
    runtime_schedule: bool = True
    dynamic_batch: bool = True
    with_preprocessing: bool = False
    outputs: tuple[str, ...] = ()
    deterministic: bool = True
    trust_checkpoint: bool = False
    verify: bool = True
    verify_images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ExportResult:
    """What was written, what the self-check found, and what was assumed about the checkpoint."""

    path: Path
    metadata: ArtifactMetadata
    verification: ValidationReport | None
    notes: tuple[str, ...] = ()


def export_checkpoint(request: ExportRequest, progress: Progress = lambda _: None) -> ExportResult:
    """Export a checkpoint, check the file, and only then give it its name.

    Args:
        request: What to do.
        progress: Called with a short description when a stage begins.

    Raises:
        UsageError: An option that cannot be meant.
        CheckpointError: The checkpoint cannot be read or does not fit.
        ExportError: The graph could not be made, or does not compute what PyTorch computes.
        ArtifactError: The output cannot be written.
    """
    _check_request(request)
    progress("reading the checkpoint")
    loaded = load_checkpoint(
        request.checkpoint,
        arch=request.arch,
        num_heads=request.num_heads,
        image_size=request.image_size,
        trust_checkpoint=request.trust_checkpoint,
    )
    recipe = _recipe(request, loaded)
    module = build_model(loaded)
    patch(module, recipe, deterministic=request.deterministic)
    if request.precision == "fp16":
        module.half()
    progress("tracing the model")
    model, metadata = make_model(module, loaded, recipe, request)
    progress("writing the file")
    proto = finish_model(model, metadata, request)
    with atomic_path(request.output) as temporary:
        onnx.save(proto, str(temporary))
        verification = None
        if request.verify:
            progress("comparing with PyTorch")
            verification = verify_file(
                temporary,
                module,
                recipe,
                metadata,
                images=request.verify_images,
                name=str(request.output),
                progress=progress,
            )
    notes = loaded.notes
    if request.method is None and loaded.recipe is None:
        notes += ("the checkpoint names no reduction method, so the file merges nothing: name one with --method",)
    return ExportResult(request.output, metadata, verification, notes)


def make_model(
    module: nn.Module, loaded: LoadedCheckpoint, recipe: Recipe, request: ExportRequest
) -> tuple[ir.Model, ArtifactMetadata]:
    """Trace a patched module into the graph, with named steps and the runtime schedule."""
    config, state = loaded.config, reduction_of(module)
    steps = recipe.steps(config.tokens, config.num_prefix)
    runtime = request.runtime_schedule and recipe.spec.schedule_kind is not None
    model = build_graph(
        module,
        state,
        (config.in_channels, *config.image_size),
        opset=request.opset,
        dynamic_batch=request.dynamic_batch,
        runtime=runtime,
        counts=_trace_counts(state, config, steps),
        with_features="features" in request.outputs and config.num_classes > 0,
    )
    symbols = _symbols(model, steps)
    records = name_steps(model, recipe.spec, steps, num_prefix=config.num_prefix)
    rename_symbols(model, symbols)
    if runtime:
        kind = recipe.spec.schedule_kind
        assert kind is not None  # noqa: S101 - `runtime` says so
        add_runtime_schedule(
            model,
            kind=kind,
            amounts=recipe.amounts,
            tokens=config.tokens,
            prefix=config.num_prefix,
            fuse=recipe.spec.fuses,
        )
    if config.num_classes == 0:
        model.graph.outputs[0].name = "features"
    add_step_outputs(model, records, request.outputs)
    return model, _metadata(loaded, recipe, request, records, runtime=runtime)


def finish_model(model: ir.Model, metadata: ArtifactMetadata, request: ExportRequest) -> onnx.ModelProto:
    """Bodies, preprocessing, metadata; checked by the ONNX checker and shape inference.

    Raises:
        ExportError: The model is over protobuf's 2 GiB, or the checker refuses it.
    """
    if request.with_preprocessing:
        fold_preprocessing(model, metadata.preprocessing)
    model.producer_name, model.producer_version = "tmdeploy", tmdeploy.__version__
    model.ir_version = 10
    model.metadata_props.clear()
    model.metadata_props[METADATA_KEY] = dump(metadata)
    attach_bodies(model, request.opset)
    for node in model.graph:
        node.metadata_props.clear()  # torch's stack traces: paths of this machine
    size = sum(tensor.const_value.nbytes for tensor in model.graph.initializers.values() if tensor.const_value)
    if size > _PROTOBUF_LIMIT:
        raise ExportError(
            f"the weights take {size / 2**30:.1f} GiB, over the 2 GiB that one ONNX file holds",
            path=request.output,
            remedy="Export with --precision fp16",
        )
    proto = ir.serde.serialize_model(model)
    if request.lowering == "portable":
        proto = inline_bodies(proto)
    try:
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"the ONNX checker refuses the graph ({first})", path=request.output) from error
    return proto


def _check_request(request: ExportRequest) -> None:
    if request.output.suffix != ".onnx":
        raise UsageError(f"{request.output}: the output is an ONNX file", remedy="Name it with the suffix .onnx")
    if request.output.resolve() == request.checkpoint.resolve():
        raise UsageError(f"{request.output}: the output would overwrite the checkpoint")
    if not MIN_OPSET <= request.opset <= MAX_OPSET:
        raise UsageError(f"--opset {request.opset}: supported are {MIN_OPSET} to {MAX_OPSET}")
    unknown = [name for name in request.outputs if name not in OUTPUTS]
    if unknown:
        raise UsageError(f"unknown output '{unknown[0]}'", remedy=f"Choose from: {', '.join(OUTPUTS)}")
    check_writable(request.output)


def _recipe(request: ExportRequest, loaded: LoadedCheckpoint) -> Recipe:
    config, stored = loaded.config, loaded.recipe
    typed = (request.r, request.keep, request.layers, request.options)
    if request.method is None and stored is not None and not any(typed):
        stored.steps(config.tokens, config.num_prefix)
        return stored
    method = request.method or (stored.method if stored is not None else "none")
    options = dict(request.options)
    if stored is not None and stored.method == method:
        options = {**stored.options, **options}
    return make_recipe(
        method,
        depth=config.depth,
        tokens=config.tokens,
        prefix=config.num_prefix,
        r=request.r,
        keep=request.keep,
        layers=request.layers,
        options=options,
    )


def _trace_counts(state: Reduction, config: VitConfig, steps: tuple[Step, ...]) -> list[tuple[int, int | None]]:
    """Counts to trace with: all different and none special (0, 1, N), so that torch keeps every one symbolic."""
    counts: list[tuple[int, int | None]] = []
    tokens = config.tokens
    for step in steps:
        fused = int(state.spec.fuses)
        tokens = max(config.num_prefix + 2 + fused, min(tokens - 1, step.tokens_out if step.amount else tokens - 1))
        counts.append((tokens, tokens - 1 if fused else None))
    return counts


def _symbols(model: ir.Model, steps: tuple[Step, ...]) -> dict[str, str]:
    symbols = {}
    for value in model.graph.inputs:
        assert value.shape is not None  # noqa: S101 - inputs have one
        dimension = value.shape[0]
        old = getattr(dimension, "value", dimension)
        if not isinstance(old, str):
            continue
        if value.name == "images":
            symbols[old] = BATCH
        elif str(value.name).startswith(SLOTS):
            symbols[old] = f"tokens_after_block{steps[int(str(value.name).removeprefix(SLOTS))].block}"
    return symbols


def _metadata(
    loaded: LoadedCheckpoint,
    recipe: Recipe,
    request: ExportRequest,
    records: tuple[StepRecord, ...],
    *,
    runtime: bool,
) -> ArtifactMetadata:
    spec = recipe.spec
    return ArtifactMetadata(
        tool_version=tmdeploy.__version__,
        torch_version=torch.__version__,
        method=recipe.method,
        method_options=dict(spec.options),
        schedule_kind=spec.schedule_kind,
        layers=recipe.layers,
        schedule=recipe.amounts,
        runtime_schedule=runtime,
        architecture=loaded.config.model_dump(),
        source_name=loaded.path.name,
        source_sha256=loaded.sha256,
        preprocessing=loaded.preprocessing.model_copy(update={"image_size": loaded.config.image_size}),
        preprocessing_in_graph=request.with_preprocessing,
        class_names=loaded.class_names,
        opset=request.opset,
        precision=request.precision,
        lowering=request.lowering,
        deterministic_planner=request.deterministic,
        dynamic_batch=request.dynamic_batch,
        steps=records,
    )
