from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.plugins.cuda.building import PLUGINS
from tests.tensorrt.plugin.bindings import SHA256, tensorrt_bindings
from tests.tensorrt.plugin.entry_library import EntryLibrary, build_entries
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.cuda import find_nvcc
from tmdeploy.tensorrt.plugin import PtxLibrary, register_plugins

SCRIPT = PLUGINS.parent / "scripts" / "build_ptx.py"


@pytest.fixture(scope="session")
def ptx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PTX, compiled by the script."""
    spec = importlib.util.spec_from_file_location("build_ptx", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        nvcc = find_nvcc()
    except EnvironmentMissing:
        pytest.skip("nvcc is not installed: the PTX cannot be built")
    folder = tmp_path_factory.mktemp("ptx")
    try:
        script.build(nvcc, folder, jobs=2)
    except script.CompileError as error:
        pytest.fail(str(error), pytrace=False)
    return folder


@pytest.fixture(scope="session")
def library(ptx_folder: Path) -> PtxLibrary:
    return PtxLibrary(ptx_folder, capability=(9, 0))


@pytest.fixture(scope="session")
def entries(tmp_path_factory: pytest.TempPathFactory) -> EntryLibrary:
    """The same entry kernels on the emulator."""
    return EntryLibrary(build_entries(tmp_path_factory.mktemp("entries")))


@pytest.fixture(scope="module", params=sorted(SHA256))
def bindings(request: pytest.FixtureRequest, library: PtxLibrary) -> Iterator[SimpleNamespace]:
    """NVIDIA's Python layer with the plugins registered, in both versions."""
    with tensorrt_bindings(request.param) as found:
        register_plugins(library)
        yield found
