"""Passes of other distributions, for `export --pass NAME`: entry points in the group `tmdeploy.graph_passes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tmdeploy.errors import UsageError
from tmdeploy.extensions import Table
from tmdeploy.graph.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

PASSES: Table[Pass[Any]] = Table("tmdeploy.graph_passes", Pass, tuple)  # type: ignore[type-abstract]


def find_pass(name: str) -> Pass[ir.Model]:
    """A registered pass.

    Raises:
        UsageError: No installed distribution has it.
    """
    found = PASSES.get(name)
    if found is None:
        known = ", ".join(sorted(one.name for one in PASSES))
        remedy = f"Installed are: {known}" if known else "No installed package brings any"
        raise UsageError(f"no graph pass '{name}'", remedy=remedy)
    return found
