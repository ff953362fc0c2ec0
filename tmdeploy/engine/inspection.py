"""What `tmdeploy inspect model.plan` finds, without a GPU. The JSON document has schema `tmdeploy.inspect-engine/1`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tmdeploy.engine.compatibility import check_fit, read_engine
from tmdeploy.engine.sidecar import EngineRecord
from tmdeploy.errors import TmdeployError


class EngineInspection(BaseModel):
    """An engine, and whether it would run on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: str = Field(default="tmdeploy.inspect-engine/1", alias="schema")
    path: str
    engine: EngineRecord
    runs_here: bool
    reason: str = Field(default="", description="why it does not, and what to do")


def inspect_engine(path: Path) -> EngineInspection:
    """Read an engine's header and sidecar, and see whether it fits this machine.

    Raises:
        ArtifactError: No engine, a damaged one, or one without its sidecar.
    """
    record = read_engine(path)
    try:
        check_fit(path)
    except TmdeployError as error:
        return EngineInspection(path=str(path), engine=record, runs_here=False, reason=error.one_line())
    return EngineInspection(path=str(path), engine=record, runs_here=True)
