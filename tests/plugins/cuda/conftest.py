from __future__ import annotations

import pytest

from scripts.gpu.kernel_library import KernelLibrary
from tests.plugins.cuda.building import emulated_library


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> KernelLibrary:
    """The CUDA kernels on the emulator."""
    return KernelLibrary(emulated_library(tmp_path_factory.mktemp("emulated")))
