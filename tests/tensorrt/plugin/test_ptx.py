"""The PTX files: what is read from them is what the same sources are on the host, and each kernel stands alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.cuda.building import need
from tests.tensorrt.plugin.entry_library import EntryLibrary
from tmdeploy.errors import ArtifactError, EnvironmentMissing, UnsupportedModel
from tmdeploy.tensorrt.plugin import PtxLibrary
from tmdeploy.tensorrt.plugin.launch import Launch, check_launch
from tmdeploy.tensorrt.plugin.ptx import OPS, parse_ptx


def test_signatures_and_layouts_are_the_sources(library: PtxLibrary, entries: EntryLibrary) -> None:
    """Parameters in the PTX against the C++ types; sizes by nvcc against the host compiler's."""
    count = 0
    for op in OPS:
        file = library.file(op)
        for name, module in file.modules.items():
            assert module.parameters == entries.signature(name), name
            assert module.threads == file.layout[0]
            count += 1
        assert file.layout == entries.layout(op, len(file.layout))
    assert count == 6 + 8 + 42
    assert entries.signature("tmdeploy_match") is None


@pytest.mark.parametrize(
    "entry",
    ["tmdeploy_match_bf16", "tmdeploy_match_f32_fast", "tmdeploy_select_fuse", "tmdeploy_reduce_f16_384_weighted"],
)
@pytest.mark.parametrize("architecture", ["75", "120"])
def test_one_module_is_complete_and_does_not_spill(
    library: PtxLibrary, entry: str, architecture: str, tmp_path: Path
) -> None:
    """As the driver would take it; ptxas also refuses what the stated PTX version does not have."""
    module = library.file(entry.split("_")[1]).modules[entry]
    assert module.text.count(".visible .entry") == 1
    assert ".version 8.3\n.target sm_75\n" in module.text
    path = tmp_path / "module.ptx"
    path.write_text(module.text)
    command = [need("ptxas"), f"-arch=sm_{architecture}", "-v", path, "-o", tmp_path / "module.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " 0 bytes spill stores, 0 bytes spill loads" in done.stderr


def test_library_takes_the_newest_the_gpu_can_run(ptx_folder: Path, tmp_path: Path) -> None:
    for path in ptx_folder.glob("*.ptx"):
        shutil.copy(path, tmp_path)
        newer = path.read_text().replace(".target sm_75", ".target sm_80")
        (tmp_path / path.name.replace("75", "80")).write_text(newer)
    for capability, architecture in (((7, 5), 75), ((8, 0), 80), ((12, 0), 80)):
        assert PtxLibrary(tmp_path, capability).file("match").architecture == architecture
    with pytest.raises(EnvironmentMissing, match="compute capability 7.0 is older than the kernels' PTX"):
        PtxLibrary(tmp_path, (7, 0))


def test_missing_ptx_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="is not part of this installation.*scripts/build_ptx.py"):
        PtxLibrary(tmp_path)


@pytest.mark.parametrize("text", ["", "no ptx", ".target sm_75\n.visible .entry f(\n)\n{\n}\n"])
def test_foreign_ptx_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="not the PTX of tmdeploy's kernels"):
        parse_ptx(text, Path("some.ptx"))


def test_parameter_that_tensorrt_cannot_pass_is_refused(library: PtxLibrary) -> None:
    file = library.file("reduce")
    assert file.modules["tmdeploy_reduce_f32"].parameters == "pppiiiiiipp"
    declared = ".param .u32 tmdeploy_reduce_f32_param_4,"
    pointer = file.path.read_text().replace(declared, declared.replace("u32", "u64"))
    assert parse_ptx(pointer, file.path).modules["tmdeploy_reduce_f32"].parameters == "pppipiiiipp"
    broken = file.path.read_text().replace(declared, declared.replace("u32", "f32"))
    with pytest.raises(ArtifactError, match="tmdeploy_reduce_f32 has parameters TensorRT cannot pass"):
        parse_ptx(broken, file.path)


def test_launch_that_does_not_fit_its_kernel_is_refused() -> None:
    launch = Launch("kernel", 1, 256, 100, (1, 2))
    with pytest.raises(UnsupportedModel, match="kernel takes pip in 256 threads, the launch has piip"):
        check_launch(launch, "pip", 1, 1, 256)
    with pytest.raises(UnsupportedModel, match="in 512 threads"):
        check_launch(launch, "piip", 1, 1, 512)


def test_source_that_does_not_compile_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\necho 'match_entries.cu(1): error: no' >&2\nexit 1\n")
    broken.chmod(0o755)
    script = Path(__file__).parents[3] / "scripts" / "build_ptx.py"
    command = [sys.executable, script, "--output", tmp_path / "out"]
    environment = {"PATH": "/usr/bin:/bin", "CUDACXX": str(broken)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 4
    assert "match_entries.cu(1): error: no" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
