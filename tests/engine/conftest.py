"""Exports are slow, so every file is made once a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.engines import export_tiny

Exported = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported("tome")`, `exported("tome", lowering="portable")`: the file, which a test must not change."""
    made: dict[tuple[object, ...], Path] = {}

    def export(method: str, **request: object) -> Path:
        key = (method, *sorted(request.items()))
        if key not in made:
            made[key] = export_tiny(method, tmp_path_factory.mktemp(method), **request)
        return made[key]

    return export
