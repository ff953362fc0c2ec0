"""`tmdeploy.build` and `tmdeploy.refit`: TensorRT engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tmdeploy.api.arguments import Amounts, Checkpoint, FilePath, as_tuple
from tmdeploy.card.schedule import as_typed
from tmdeploy.errors import UsageError
from tmdeploy.system.machine import command_line
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from tmdeploy.tensorrt.build.run import BuildResult
    from tmdeploy.tensorrt.record.profiles import BatchRange


def build(
    model: FilePath,
    output: FilePath | None = None,
    *,
    flavor: Literal["auto", "tensorrt", "rtx"] = "auto",
    precision: Literal["fp32", "tf32", "fp16", "bf16"] | None = None,
    keep_fp32: str | Sequence[str] | None = None,
    min_batch: int | None = None,
    opt_batch: int | None = None,
    max_batch: int | None = None,
    profile: str | int | Sequence[str | int] = (),
    schedule_range: str | None = None,
    target_sm: str | Sequence[str] = (),
    plugins: Literal["auto", "aot", "none"] = "auto",
    plugin: FilePath | None = None,
    embed_plugin: bool = False,
    workspace: int | None = None,
    builder_optimization_level: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: Literal["none", "ampere+", "same-cc"] = "none",
    strip_weights: bool = False,
    refittable: bool = False,
    weight_streaming: bool = False,
    profiling_verbosity: Literal["none", "layer-names-only", "detailed"] = "detailed",
    timing_cache: FilePath | None = None,
    method: str | None = None,
    r: Amounts | None = None,
    keep: Amounts | None = None,
    schedule: Amounts | None = None,
    layers: str | Sequence[int] | None = None,
    method_option: Mapping[str, str | float | bool] | None = None,
    against: FilePath | nn.Module | Callable[[], object] | None = None,
    progress: Progress = silent,
    **checkpoint: Unpack[Checkpoint],
) -> BuildResult:
    """Build a TensorRT or TensorRT-RTX engine, and a sidecar that says what it is and what it needs.

        tmdeploy.build("deit_s.onnx", "deit_s.plan", precision="fp16", schedule_range="0:13:16")

    A checkpoint is exported first, beside the engine, so that a rebuild is one call; `method` to `against` and
    `checkpoint` are for that and mean what they mean to `tmdeploy.export`.

    Args:
        model: An `.onnx`, or a checkpoint.
        output: The engine to write; None takes the model's name with the suffix `.plan`.
        flavor: Which TensorRT; `auto`: the one that is installed.
        precision: Convert an fp32 file to this; None builds it as it is, without TF32.
        keep_fp32: What stays fp32: groups (`graph.precision.GROUPS`), op types, patterns of node names; with a sign it
            widens or narrows the default.
        min_batch: Smallest batch; None is 1.
        opt_batch: Batch to tune for; None is 8.
        max_batch: Largest batch; None is 32.
        profile: Instead of these three: batch sizes of each profile, "1:8:32" or 8.
        schedule_range: Make r or keep an input, with this range: "0:13:16".
        target_sm: GPUs to build for, TensorRT-RTX only: ["sm_86", "sm_89"].
        plugins: Token ops in full TensorRT: `aot`, plugins whose kernels the engine carries; `none`, standard ops;
            `auto`: `plugin` if given, else `aot` where it can be had.
        plugin: Library of tmdeploy's C++ plugins to build with.
        embed_plugin: Carry that library in the engine.
        workspace: Memory for scratch space, MiB.
        builder_optimization_level: How long to search for fast kernels, 0 to 5.
        version_compatible: Run on later versions too (full TensorRT).
        hardware_compatible: Run on other GPUs too (full TensorRT).
        strip_weights: Leave out weights; `refit` puts them in before use.
        refittable: Let `refit` put in other weights than these.
        weight_streaming: Let weights stay on the host at run time.
        profiling_verbosity: What the engine tells about its layers.
        timing_cache: Measured kernel times (full TensorRT); None takes one in the user's cache folder.
        method: As in `tmdeploy.export`, and so are all that follow.
        r: Tokens to merge per block.
        keep: Patch tokens to keep per step.
        schedule: Either of the two.
        layers: Blocks with a reduction step.
        method_option: Options of the method.
        against: The owner's own model to prove it against.
        progress: Called with what is going on and the share that is done, also from another thread.
        checkpoint: How the checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        UsageError: Options that cannot be meant, for this file or this flavor.
        ArtifactError, CheckpointError: The file cannot be read, or the output cannot be written.
        EnvironmentMissing: TensorRT, for full TensorRT a GPU, or the plugins are not here.
        ExportError: The export failed, or TensorRT refused the graph or failed to build.
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.graph.precision import parse_keep
    from tmdeploy.tensorrt.build.request import BuildRequest
    from tmdeploy.tensorrt.build.run import build_engine
    from tmdeploy.tensorrt.record.profiles import parse_batch
    from tmdeploy.tensorrt.record.sidecar import Options

    limits = (min_batch, opt_batch, max_batch)
    profiles = tuple(parse_batch(str(text)) for text in as_tuple(profile))
    if profiles and any(limit is not None for limit in limits):
        raise UsageError("--profile and --min-batch, --opt-batch, --max-batch say the same: give one kind")
    engine = engine_path(model, output)
    targets = target_sm.split(",") if isinstance(target_sm, str) else target_sm
    request = BuildRequest(
        model=Path(model),
        output=engine,
        flavor=flavor,
        precision=precision,
        keep_fp32=parse_keep(None if keep_fp32 is None else as_typed(keep_fp32)),
        profiles=profiles or (_batch_range(*limits),),
        schedule=schedule_range,
        target_sm=tuple(part.strip() for part in targets if part.strip()),
        plugins=plugins,
        plugin=None if plugin is None else Path(plugin),
        embed_plugin=embed_plugin,
        timing_cache=None if timing_cache is None else Path(timing_cache),
        options=Options(
            workspace_mib=workspace,
            builder_optimization_level=builder_optimization_level,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            strip_weights=strip_weights,
            refittable=refittable,
            weight_streaming=weight_streaming,
            profiling_verbosity=profiling_verbosity,
        ),
        command=command_line(),
    )
    given: dict[str, Any] = {"method": method, "r": r, "keep": keep, "schedule": schedule, "layers": layers}
    given = {**given, "method_option": method_option, "against": against, **checkpoint}
    exporting = {name: value for name, value in given.items() if value is not None and value is not False}
    if backend_for(request.model).reads_checkpoints:
        request = replace(request, model=_exported(request.model, engine, exporting, progress))
    elif exporting:
        option = next(iter(exporting)).replace("_", "-")
        raise UsageError(f"--{option}: only a checkpoint is exported; {model} is exported already")
    return build_engine(request, progress)


def refit(
    engine: FilePath,
    model: FilePath,
    output: FilePath | None = None,
    *,
    other_weights: bool = False,
    progress: Progress = silent,
) -> BuildResult:
    """Put weights into an engine that was built without them, on the GPU that it is for.

        tmdeploy.refit("deit_s.plan", "deit_s.onnx", "deit_s.full.plan")

    Args:
        engine: Built with `strip_weights` or `refittable`.
        model: The `.onnx` with the weights.
        output: The engine to write; None takes the engine's name with the suffix `.full.plan`.
        other_weights: The `.onnx` is not the engine's source, but has its graph (`refittable`).
        progress: Called when a stage begins.

    Raises:
        UsageError: The engine takes no weights, or no others than those of its source.
        ArtifactError: A file is damaged or another one than it should be, or the output cannot be written.
        EnvironmentMissing: No GPU, or not the one or the TensorRT that the engine needs.
        ExportError: TensorRT refused the weights.
    """
    from tmdeploy.tensorrt.build.refit import RefitRequest, refit_engine

    request = RefitRequest(
        engine=Path(engine),
        model=Path(model),
        output=refitted_path(engine, output),
        other_weights=other_weights,
        command=command_line(),
    )
    return refit_engine(request, progress)


def engine_path(model: FilePath, output: FilePath | None) -> Path:
    """Where the engine goes if nobody says."""
    return Path(model).with_suffix(".plan") if output is None else Path(output)


def refitted_path(engine: FilePath, output: FilePath | None) -> Path:
    """Where the refitted engine goes if nobody says."""
    path = Path(engine)
    return path.with_name(f"{path.stem}.full{path.suffix}") if output is None else Path(output)


def _batch_range(low: int | None, best: int | None, high: int | None) -> BatchRange:
    from tmdeploy.tensorrt.record.profiles import parse_batch

    low = 1 if low is None else low
    high = max(32, low, best or 0) if high is None else high
    best = min(max(8, low), high) if best is None else best
    return parse_batch(f"{low}:{best}:{high}", "--min-batch, --opt-batch, --max-batch")


def _exported(model: Path, engine: Path, options: Mapping[str, Any], progress: Progress) -> Path:
    """The checkpoint as ONNX, beside the engine."""
    from tmdeploy.api.export import export

    target = engine.with_suffix(".onnx")
    if target.exists():
        raise UsageError(f"{target} exists already", remedy="Build from it, or name another engine with -o")
    return export(model, target, progress=progress, **options).path
