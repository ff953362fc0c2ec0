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
    """The file to write, whatever it is made from: arguments of `tmdeploy.export`, which says what they mean.

    Three have names of their own: `runtime_schedule` is `runtime_r`, `outputs` is `extra_output`, `verify_images` is
    `verify_data`.
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
    """Which checkpoint to export, with which reduction, and how: arguments of `tmdeploy.export`.

    `options` are those of the method.
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
