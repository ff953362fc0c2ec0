"""What an export is asked for, and refusing what cannot be meant before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tmdeploy.errors import UsageError
from tmdeploy.graph.base import Pass
from tmdeploy.graph.registered import find_pass
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET
from tmdeploy.system.files import check_outputs

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

OUTPUTS = ("plan", "size", "features")


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """The file to write, whatever it is made from.

    Attributes:
        output: The `.onnx` to write.
        opset: Version of the standard operators.
        precision: Of weights and activations; planners, sizes and LayerNorm statistics stay fp32.
        lowering: `custom`: nodes of domain `tmdeploy` with function bodies; `portable`: standard ops only.
        runtime_schedule: Whether `r` or `keep` is an optional graph input.
        dynamic_batch: Whether any batch size can be fed; else 1.
        with_preprocessing: Take uint8 [batch, H, W, 3] pixels and normalise in the graph.
        outputs: Extra outputs: any of `plan`, `size`, `features`.
        passes: Graph passes to run after those of the export and before the comparison: of installed packages, by name,
            or objects.
        verify: Compare the file with PyTorch after writing.
        verify_images: Real images or folders to compare on, besides random ones.
    """

    output: str | Path
    opset: int = 20
    precision: Literal["fp32", "fp16"] = "fp32"
    lowering: Literal["custom", "portable"] = "custom"
    runtime_schedule: bool = True
    dynamic_batch: bool = True
    with_preprocessing: bool = False
    outputs: tuple[str, ...] = ()
    passes: Sequence[str | Pass[ir.Model]] = ()
    verify: bool = True
    verify_images: Sequence[str | Path] = ()

    @property
    def path(self) -> Path:
        """Where the file goes."""
        return Path(self.output)

    @property
    def reads(self) -> tuple[str | Path, ...]:
        """Files that the output must not overwrite."""
        return tuple(self.verify_images)

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: Another suffix, opset or output than there are, or an output that is an input.
            ArtifactError: The output cannot be written.
        """
        if self.path.suffix != ".onnx":
            raise UsageError(f"{self.output}: the output is an ONNX file", remedy="Name it with the suffix .onnx")
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise UsageError(f"--opset {self.opset}: supported are {MIN_OPSET} to {MAX_OPSET}")
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown:
            raise UsageError(f"unknown output '{unknown[0]}'", remedy=f"Choose from: {', '.join(OUTPUTS)}")
        self.given_passes()
        check_outputs({"-o": self.path}, self.reads)

    def given_passes(self) -> list[Pass[ir.Model]]:
        """What `passes` names.

        Raises:
            UsageError: No installed package has such a pass.
        """
        return [find_pass(one) if isinstance(one, str) else one for one in self.passes]


@dataclass(frozen=True, kw_only=True)
class ExportRequest(FileForm):
    """Which checkpoint to export, with which reduction, and how.

    Attributes:
        checkpoint: `.pt`, `.pth` or `.safetensors`.
        method: Reduction method; None takes the checkpoint's own recipe, else `none`.
        r: As `--r`: 13, "26:0", [8, 8, 4].
        keep: As `--keep`: 0.7, [0.9, 0.8, 0.7], [138, 97, 68].
        schedule: As `--schedule`: either of the two, whichever the method takes.
        layers: As `--layers`: "3,6,9", [3, 6, 9].
        options: Named options of the method.
        arch: Architecture by name; None infers it from the weights.
        num_heads: Attention heads, where width / 64 is wrong.
        assume: What else the weights do not show, by key, or as KEY=VALUE (docs/checkpoints.md).
        image_size: Side of the input, pixels; None takes the checkpoint's.
        deterministic: Planners accumulate in float64; else float32.
        ema: Read the averaged weights.
        ignore_extra: Leave out weights beside the ViT's.
        trust_checkpoint: Allow unpickling, which runs whatever code the file holds.
        against: The owner's own model, or what it returned, to prove ours against (`export.against`): `pkg.mod:build`,
            `timm:NAME`, `transformers:FOLDER`, `outputs.npz`; a module, or a callable that builds one.
    """

    checkpoint: str | Path
    method: str | None = None
    r: str | float | Sequence[float] | None = None
    keep: str | float | Sequence[float] | None = None
    schedule: str | None = None
    layers: str | Sequence[int] | None = None
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    arch: str | None = None
    num_heads: int | None = None
    assume: Mapping[str, object] | Sequence[str] = ()
    image_size: int | None = None
    deterministic: bool = True
    ema: bool = False
    ignore_extra: bool = False
    trust_checkpoint: bool = False
    against: str | Path | nn.Module | Callable[[], object] | None = None

    @property
    def saved_outputs(self) -> Path | None:
        """The file of outputs that `against` names, if it names one."""
        target = self.against
        named = isinstance(target, Path) or (isinstance(target, str) and target.endswith(".npz"))
        return Path(str(target)) if named else None

    @property
    def reads(self) -> tuple[str | Path, ...]:
        """As FileForm's, the checkpoint, and saved outputs."""
        saved = self.saved_outputs
        return (self.checkpoint, *super().reads, *(() if saved is None else (saved,)))
