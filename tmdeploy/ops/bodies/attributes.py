"""What the planners' bodies are made for: the attributes of their nodes, with the schema's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

Values = Mapping[str, int | float | str]
MAX_PREFIX = 1024  # more is no model's, and would be written out in a body


@dataclass(frozen=True)
class _Attributes:
    """Fields with the schema's defaults; the base has none."""

    @classmethod
    def read(cls, values: Values) -> Self:
        """From a node's. Raises ValueError for a value that the op does not have."""
        given = {name: type(default)(values[name]) for name, default in asdict(cls()).items() if name in values}
        return cls(**given)

    def declared(self) -> dict[str, int | float | str]:
        """For the function's declaration."""
        return asdict(self)


@dataclass(frozen=True)
class MatchAttributes(_Attributes):
    """Of TokenMatch; see `reference.token_match`."""

    num_prefix: int = 1
    order: str = "tome"
    metric_eps: float = 0.0
    deterministic: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.num_prefix <= MAX_PREFIX:
            raise ValueError(f"TokenMatch: num_prefix is {self.num_prefix}")
        if self.order not in {"tome", "tome_unsorted"}:
            raise ValueError(f"TokenMatch: unknown order '{self.order}'")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Of the function."""
        return ("metric", "slots")


@dataclass(frozen=True)
class SelectAttributes(_Attributes):
    """Of TokenSelect; see `reference.token_select`."""

    num_prefix: int = 1
    leftover: str = "drop"
    order: str = "score"
    metric_eps: float = 0.0
    deterministic: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.num_prefix <= MAX_PREFIX:
            raise ValueError(f"TokenSelect: num_prefix is {self.num_prefix}")
        if self.order not in {"score", "index"}:
            raise ValueError(f"TokenSelect: unknown order '{self.order}'")
        if self.leftover not in {"drop", "fuse", "nearest"}:
            raise ValueError(f"TokenSelect: unknown leftover '{self.leftover}'")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Of the function."""
        return {
            "drop": ("score", "slots"),
            "nearest": ("score", "slots", "metric"),
            "fuse": ("score", "slots", "metric", "kept"),
        }[self.leftover]
