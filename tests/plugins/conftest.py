from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.building import built_kernels, built_openvino, built_ort
from tests.plugins.kernels import Kernels


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    return Kernels(built_kernels())


@pytest.fixture(scope="session")
def ort_built() -> Path:
    return built_ort()


@pytest.fixture(scope="session")
def openvino_built() -> Path:
    return built_openvino()
