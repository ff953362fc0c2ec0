"""`tmdeploy.export`: checkpoint or patched module to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tmdeploy.api.arguments import Amounts, Checkpoint, FilePath, as_tuple, warn
from tmdeploy.card.schedule import as_typed
from tmdeploy.errors import UsageError
from tmdeploy.lazy import require
from tmdeploy.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn
    from typing_extensions import Unpack

    from tmdeploy.card.preprocessing import Preprocessing
    from tmdeploy.graph.base import Pass
    from tmdeploy.report.schemas.export import ExportResult


def export(
    model: FilePath | nn.Module,
    output: FilePath | None = None,
    *,
    method: str | None = None,
    r: Amounts | None = None,
    keep: Amounts | None = None,
    schedule: Amounts | None = None,
    layers: str | Sequence[int] | None = None,
    method_option: Mapping[str, str | float | bool] | None = None,
    opset: int = 20,
    precision: Literal["fp32", "fp16"] = "fp32",
    lowering: Literal["custom", "portable"] = "custom",
    runtime_r: bool = True,
    dynamic_batch: bool = True,
    with_preprocessing: bool = False,
    extra_output: Sequence[str] = (),
    passes: Sequence[str | Pass[ir.Model]] = (),
    deterministic: bool = True,
    verify: bool = True,
    verify_data: FilePath | Sequence[FilePath] = (),
    against: FilePath | nn.Module | Callable[[], object] | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    name: str | None = None,
    progress: Progress = silent,
    **checkpoint: Unpack[Checkpoint],
) -> ExportResult:
    """Export a checkpoint, or a module that `tmdeploy.patch` accepted, and check the file before giving it its name.

        tmdeploy.export("deit_small.pth", "deit_s.onnx", method="tome", r=13)
        tmdeploy.export(tmdeploy.patch(module, "tome", r=16), "mine.onnx")

    A module is left alone: a copy in eval mode on the CPU is traced. Its method and schedule are those it was patched
    with, so that `method` to `method_option`, `deterministic`, `against` and `checkpoint` are for checkpoints only;
    `preprocessing`, `class_names` and `name` are for modules only.

    Args:
        model: A checkpoint, or a patched module.
        output: The `.onnx` to write; None takes the checkpoint's name with that suffix.
        method: Reduction method; None takes the checkpoint's own recipe.
        r: Tokens to merge per block: 13, "26:0", [8, 8, 4].
        keep: Patch tokens to keep per step: 0.7, [138, 97, 68].
        schedule: Either of the two, whichever the method takes.
        layers: Blocks with a reduction step: [3, 6, 9].
        method_option: Options of the method.
        opset: Version of the standard operators.
        precision: Precision of weights and activations; planners, sizes and LayerNorm statistics stay fp32.
        lowering: `custom`: nodes of domain `tmdeploy` with function bodies; `portable`: standard ops only.
        runtime_r: Make the schedule (r or keep) an optional input.
        dynamic_batch: Take any batch size; else 1.
        with_preprocessing: Take uint8 [batch, H, W, 3] pixels and normalise in the graph.
        extra_output: Any of `plan`, `size`, `features`.
        passes: Graph passes to run before the comparison: of installed packages, by name, or objects.
        deterministic: Accumulate similarities in float64; else float32.
        verify: Compare the file with PyTorch.
        verify_data: Images or folders to compare on, besides random ones.
        against: The owner's own model to prove it against (`tmdeploy.export.against`), or what it returned.
        preprocessing: How images become the module's input; None takes what a timm module states of itself.
        class_names: One per class.
        name: What to call the module.
        progress: Called when a stage begins.
        checkpoint: How the checkpoint is read: `api.arguments.Checkpoint`.

    Raises:
        UsageError: An option that cannot be meant.
        CheckpointError: The checkpoint cannot be read or does not fit.
        ExportError: The graph could not be made, or does not compute what PyTorch or the owner's model computes.
        DataError: Images or saved outputs cannot be used.
        ArtifactError: The output cannot be written.
    """
    require_export()
    from torch import nn

    from tmdeploy.export.module import export_module
    from tmdeploy.export.request import ExportRequest, FileForm
    from tmdeploy.export.run import export_checkpoint

    is_module = isinstance(model, nn.Module)
    checkpoints_only = {
        "method": method,
        "r": r,
        "keep": keep,
        "schedule": schedule,
        "layers": layers,
        "against": against,
        "method_option": method_option or None,
        "deterministic": deterministic or False,
        **checkpoint,
    }
    modules_only = {"preprocessing": preprocessing, "class_names": class_names or None, "name": name}
    for option, value in (checkpoints_only if is_module else modules_only).items():
        if value is not None and (option, value) != ("deterministic", True):
            which = "a module: pass it to tmdeploy.patch" if is_module else "a checkpoint: only a module needs it"
            raise UsageError(f"{option} is not for {which}")
    form = FileForm(
        output=export_path(model, output),
        opset=opset,
        precision=precision,
        lowering=lowering,
        runtime_schedule=runtime_r,
        dynamic_batch=dynamic_batch,
        with_preprocessing=with_preprocessing,
        outputs=tuple(extra_output),
        passes=tuple(passes),
        verify=verify,
        verify_images=as_tuple(verify_data),
    )
    if not isinstance(model, str | Path):
        return export_module(
            model, form, preprocessing=preprocessing, class_names=class_names, name=name, progress=progress
        )
    request = ExportRequest(
        **vars(form),
        checkpoint=model,
        method=method,
        r=r,
        keep=keep,
        schedule=None if schedule is None else as_typed(schedule),
        layers=layers,
        options=method_option or {},
        deterministic=deterministic,
        against=against,
        **checkpoint,
    )
    result = export_checkpoint(request, progress)
    for note in result.notes:
        warn(note)
    return result


def export_path(model: FilePath | nn.Module, output: FilePath | None) -> Path:
    """Where the file goes: `m.onnx` beside `m.pth`, and beside `m.pth.tar`, if nobody says.

    Raises:
        UsageError: A module has no name to make one of.
    """
    if output is not None:
        return Path(output)
    if not isinstance(model, str | Path):
        raise UsageError("a module has no file name", remedy="Name the .onnx to write")
    path = Path(model)
    bare = path.with_suffix("")
    return (bare if path.suffix.lower() == ".tar" and bare.suffix else path).with_suffix(".onnx")


def require_export() -> None:
    """Make sure that an export can begin at all.

    Raises:
        EnvironmentMissing: torch or onnxscript is not installed.
    """
    for package in ("torch", "onnxscript"):
        require(package, purpose="exporting a checkpoint")
