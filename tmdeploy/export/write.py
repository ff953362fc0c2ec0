"""From a patched module to an ONNX file that has been checked against it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn

import tmdeploy
from tmdeploy.card.card import ModelCard
from tmdeploy.card.facts import AnyConfig
from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, StepRecord, dump
from tmdeploy.card.schedule import Step
from tmdeploy.errors import ExportError, TmdeployError
from tmdeploy.export.program import BATCH, build_graph
from tmdeploy.export.request import FileForm
from tmdeploy.export.verify import verify_file
from tmdeploy.graph.attach_bodies import AttachBodies
from tmdeploy.graph.base import Pass, run_pass, run_passes
from tmdeploy.graph.extra_outputs import ExtraOutputs
from tmdeploy.graph.fold_preprocessing import FoldPreprocessing
from tmdeploy.graph.inline_bodies import InlineBodies
from tmdeploy.graph.name_steps import NameSteps
from tmdeploy.graph.rename_symbols import RenameSymbols
from tmdeploy.graph.runtime_schedule import SLOTS, RuntimeSchedule
from tmdeploy.patching import Reduction, reduction_of
from tmdeploy.report.schemas.export import ExportResult, proof_text
from tmdeploy.system.boundary import first_line
from tmdeploy.system.files import atomic_path, sha256
from tmdeploy.system.progress import Progress, silent

_PROTOBUF_LIMIT = 2**31 - 1


def write_file(module: nn.Module, card: ModelCard, form: FileForm, progress: Progress = silent) -> ExportResult:
    """Trace, write, check the file, and only then give it its name.

    Args:
        module: Patched, in eval mode, on the CPU, in the file's precision.
        card: What the file says about it.
        form: How; already checked.
        progress: Called with a short description when a stage begins.

    Raises:
        UsageError: An extra output that the method does not have.
        ExportError: The graph could not be made, or does not compute what PyTorch computes.
        ArtifactError: The output cannot be written.
    """
    progress("tracing the model")
    model, metadata = _make_model(module, card, form)
    model, notes = _run_given(model, metadata, form)
    progress("writing the file")
    proto = _finish_model(model, metadata, form)
    with atomic_path(form.path) as temporary:
        onnx.save(proto, str(temporary))
        verification = None
        if form.verify:
            progress("comparing with PyTorch")
            verification = verify_file(
                temporary,
                module,
                metadata,
                images=[Path(path) for path in form.verify_images],
                name=str(form.output),
                progress=progress,
            )
    return ExportResult(
        path=form.path,
        bytes=form.path.stat().st_size,
        sha256=sha256(form.path),
        metadata=metadata,
        proved_against=proof_text(card.proof),
        notes=notes,
        verification=verification,
    )


def _make_model(module: nn.Module, card: ModelCard, form: FileForm) -> tuple[ir.Model, ArtifactMetadata]:
    """Trace the module into a graph, and run the export's own passes."""
    recipe, config, steps = card.reduction, card.architecture, card.steps()
    state = reduction_of(module)
    runtime = form.runtime_schedule and recipe.spec.schedule_kind is not None
    with_size = recipe.spec.tracks_size and bool(steps)
    model = build_graph(
        module,
        state,
        (config.in_channels, *config.image_size),
        opset=form.opset,
        dynamic_batch=form.dynamic_batch,
        runtime=runtime,
        counts=_trace_counts(state, config, steps),
        with_features="features" in form.outputs and config.num_classes > 0,
        with_size=with_size,
    )
    model, named = run_pass(model, NameSteps(recipe.spec, steps, config.num_prefix))
    if with_size:
        model.graph.outputs.pop()  # `size` is asked for below
    if config.num_classes == 0:
        model.graph.outputs[0].name = "features"
    passes: list[Pass[ir.Model]] = [RenameSymbols(_symbols(model, steps))]
    if runtime:
        kind = recipe.spec.schedule_kind
        assert kind is not None  # noqa: S101 - `runtime` says so
        passes.append(
            RuntimeSchedule(
                kind=kind,
                amounts=recipe.amounts,
                tokens=config.tokens,
                prefix=config.num_prefix,
                fuse=recipe.spec.fuses,
            )
        )
    passes.append(ExtraOutputs(named.records, form.outputs))
    if form.with_preprocessing:
        passes.append(FoldPreprocessing(card.preprocessing))
    model, _ = run_passes(model, [*passes, AttachBodies(form.opset)])
    return model, _metadata(card, form, state, named.records, runtime=runtime)


def _run_given(model: ir.Model, metadata: ArtifactMetadata, form: FileForm) -> tuple[ir.Model, tuple[str, ...]]:
    """Run the passes that the user named, each followed by a look at the tensors that the file's metadata will name.

    Returns:
        The model, and what they changed.

    Raises:
        ExportError: A pass failed, or took a step's tensor away.
    """
    said: list[str] = []
    for one in form.given_passes():
        try:
            model, change = run_pass(model, one)
        except TmdeployError:
            raise
        except Exception as error:
            raise ExportError(
                f"the graph pass '{one.name}' failed ({first_line(error)})", path=form.path, remedy="Export without it"
            ) from error
        known = {value.name for node in model.graph for value in node.outputs}
        known |= {value.name for value in model.graph.inputs}
        gone = next((name for step in metadata.steps for name in step.tensors if name not in known), None)
        if gone is not None:
            raise ExportError(
                f"the graph pass '{one.name}' took away the tensor '{gone}', by which a reduction step is found",
                path=form.path,
                remedy="Export without it",
            )
        said += [str(change), *change.notes]
    return model, tuple(said)


def _finish_model(model: ir.Model, metadata: ArtifactMetadata, form: FileForm) -> onnx.ModelProto:
    """Metadata, and one file; checked by the ONNX checker and shape inference.

    Raises:
        ExportError: The model is over protobuf's 2 GiB, or the checker refuses it.
    """
    model.producer_name, model.producer_version = "tmdeploy", tmdeploy.__version__
    model.ir_version = 10
    model.metadata_props.clear()
    model.metadata_props[METADATA_KEY] = dump(metadata)
    for node in model.graph:
        node.metadata_props.clear()  # torch's stack traces: paths of this machine
    size = sum(tensor.const_value.nbytes for tensor in model.graph.initializers.values() if tensor.const_value)
    if size > _PROTOBUF_LIMIT:
        raise ExportError(
            f"the weights take {size / 2**30:.1f} GiB, over the 2 GiB that one ONNX file holds",
            path=form.path,
            remedy="Export with --precision fp16",
        )
    proto = ir.serde.serialize_model(model)
    if form.lowering == "portable":
        proto, _ = run_pass(proto, InlineBodies())
    try:
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"the ONNX checker refuses the graph ({first})", path=form.path) from error
    return proto


def _trace_counts(state: Reduction, config: AnyConfig, steps: tuple[Step, ...]) -> list[tuple[int, int | None]]:
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
    card: ModelCard, form: FileForm, state: Reduction, records: tuple[StepRecord, ...], *, runtime: bool
) -> ArtifactMetadata:
    return ArtifactMetadata(
        card=card,
        opset=form.opset,
        precision=form.precision,
        lowering=form.lowering,
        deterministic_planner=state.deterministic,
        dynamic_batch=form.dynamic_batch,
        preprocessing_in_graph=form.with_preprocessing,
        schedule_input=card.schedule_kind if runtime else None,
        steps=records,
    )
