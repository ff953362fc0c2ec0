"""Results as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel


def json_text(document: BaseModel | dict[str, Any], *, ascii_only: bool = False) -> str:
    """A result as strict JSON: NaN and the infinities become null.

    Args:
        document: A report.
        ascii_only: Escape all letters beyond ASCII.
    """
    data = document.model_dump(mode="json", by_alias=True) if isinstance(document, BaseModel) else document
    return json.dumps(_finite(data), indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
