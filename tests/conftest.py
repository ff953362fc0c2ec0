"""Shared fixtures; hypothesis runs the same examples everywhere."""

from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "tmdeploy", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tmdeploy")


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The library whose names and numbers tmdeploy's models follow. Required: no test skips without it."""
    from tests.timm_shim import import_timm

    return import_timm()
