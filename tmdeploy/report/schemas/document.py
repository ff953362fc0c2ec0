"""What all JSON documents have in common."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A part of a document: nothing in it changes, and it has no other fields than these."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Result(Document):
    """What a verb returns, and what its command writes for `--json`."""

    def to_json(self, *, ascii_only: bool = False) -> str:
        """As `json_text`."""
        return json_text(self.model_dump(mode="json", by_alias=True), ascii_only=ascii_only)


def json_text(document: dict[str, Any], *, ascii_only: bool = False) -> str:
    """A document as strict JSON: NaN and the infinities become null.

    Args:
        document: Its entries.
        ascii_only: Escape all letters beyond ASCII.
    """
    return json.dumps(_finite(document), indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
