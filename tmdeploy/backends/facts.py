"""What computes a model, and how: every runner says so once, and validate, bench and the reports read it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunnerFacts:
    """What computes a model, and how.

    Attributes:
        backend: Its registered name.
        version: Version of the runtime.
        device: `cpu`, or `cuda:1`, CUDA's number of a GPU. Spelt one way whatever is given: `CPU` becomes `cpu`,
            `cuda` becomes `cuda:0`.
        precision: Precision of the arithmetic, such as `fp32` or `int8+fp16`; None if a foreign file does not say.
        threads: Intra-op threads; None leaves them to the runtime.
        native: Native kernels compute the nodes of the op set, not the file's function bodies.
        lowering: What the reduction steps are here, for people; empty where there is nothing to say.
        method: The reduction method; empty where a file of other origin does not say.
        provider: The runtime's name of the part that computes, or the GPU's name; empty where there is none.
        in_reports: What reports say besides, or in the backend's own words instead of the above, by key.
    """

    backend: str
    version: str
    device: str = "cpu"
    precision: str | None = None
    threads: int | None = None
    native: bool = False
    lowering: str = ""
    method: str = ""
    provider: str = ""
    in_reports: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        device = self.device.lower()
        object.__setattr__(self, "device", "cuda:0" if device == "cuda" else device)

    @property
    def gpu(self) -> int | None:
        """CUDA's number of the GPU; None on a CPU."""
        kind, _, number = self.device.partition(":")
        return int(number) if kind == "cuda" else None

    def described(self) -> dict[str, str]:
        """As JSON reports and tables have it, without what is not known."""
        said = {
            "backend": self.backend,
            "version": self.version,
            "provider": self.provider,
            # CPUExecutionProvider says it all
            "device": "" if self.provider.lower().startswith(self.device) else self.device,
            "threads": str(self.threads or "default"),
            "method": self.method,
            "precision": self.precision or "",
            "lowering": self.lowering,
            **self.in_reports,
        }
        return {key: text for key, text in said.items() if text}
