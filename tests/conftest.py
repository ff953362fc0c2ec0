"""Shared fixtures; hypothesis runs the same examples everywhere."""

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = Path(__file__).parent.parent / "examples"

settings.register_profile(
    "tmdeploy", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tmdeploy")


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The library whose names and numbers tmdeploy's models follow. Required: no test skips without it."""
    from tests.timm_shim import import_timm

    return import_timm()


@pytest.fixture(scope="session")
def digits_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example checkpoint, exported once a worker."""
    from tmdeploy.export import ExportRequest, export_checkpoint

    output = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export_checkpoint(ExportRequest(checkpoint=EXAMPLES / "digits_tome.pt", output=output, verify=False))
    return output
