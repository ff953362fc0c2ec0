"""The TensorRT plugin through its own interfaces, without libnvinfer, on the emulated kernels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from scripts.gpu.plugin_case import HarnessError, run_case
from tests.fetching import one_at_a_time
from tests.ops.strategies import DTYPES
from tests.plugins.cuda.building import PLUGINS, emulated_library, need, run
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.tensorrt_headers import download_tensorrt_headers, downloaded_headers, find_tensorrt_headers
from tmdeploy.ops.reference import token_match, token_reduce, token_select

SOURCES = PLUGINS / "tensorrt"


def tensorrt_headers() -> Path:
    """TensorRT's headers, or skip with the reason."""
    try:
        with one_at_a_time(downloaded_headers().parent):
            return find_tensorrt_headers() or download_tensorrt_headers()
    except EnvironmentMissing as error:
        pytest.skip(str(error))


def cuda_include() -> Path:
    """Folder of cuda_runtime_api.h, which TensorRT's headers include, or skip."""
    nvcc = shutil.which("nvcc")
    places = [Path(nvcc).resolve().parents[1] / "include"] if nvcc else []
    places.append(Path("/usr/local/cuda/include"))
    for place in places:
        if (place / "cuda_runtime_api.h").is_file():
            return place
    pytest.skip("cuda_runtime_api.h is not installed")


@dataclass(frozen=True)
class Built:
    library: Path
    harness: Path
    folder: Path


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("tensorrt")
    includes = ["-isystem", tensorrt_headers(), "-isystem", cuda_include()]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", *includes]
    kernels = emulated_library(folder)
    library, harness = folder / "libtmdeploy_tensorrt.so", folder / "harness"
    link = [f"-Wl,-rpath,{folder}", "-Wl,--no-undefined"]
    run([need("g++"), *flags, "-shared", SOURCES / "library.cpp", kernels, *link, "-o", library])
    run(
        [need("g++"), *flags, "-DTMDEPLOY_EMULATE", *sorted((SOURCES / "harness").glob("*.cpp")), "-ldl", "-o", harness]
    )
    return Built(library, harness, folder)


def test_interfaces(plugin: Built) -> None:
    done = subprocess.run([plugin.harness, plugin.library, "check"], capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 0, "\n".join(failed) or done.stderr
    assert not failed
    assert done.stdout.count("\nok ") > 100
    assert "TokenReduce: serialises to mode=wmean;input_count=4;" in done.stdout
    # a refusal says why, once, on standard error
    assert "tmdeploy TokenMatch: order is 'rank', which is not known" in done.stderr


def test_needs_nothing_of_tensorrt_at_run_time(plugin: Built) -> None:
    symbols = run(["nm", "-D", "--undefined-only", plugin.library]).stdout
    assert "nvinfer" not in symbols
    assert "createInfer" not in symbols
    exported = run(["nm", "-D", "--defined-only", plugin.library]).stdout
    assert re.findall(r" T (\w+)", exported) == ["getCreators", "setLoggerFinder"]


def test_touches_no_logger() -> None:
    """ILogger's vtable changed in 11.0: one call and the library no longer loads in both."""
    for source in [*SOURCES.glob("*.h"), SOURCES / "library.cpp"]:
        code = re.sub(r"//.*", "", source.read_text())
        assert "ILogger" not in code.replace("ILoggerFinder*", ""), source.name
        assert "getLogger" not in code, source.name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_match_enqueue(plugin: Built, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    metric = torch.randn(2, 300, 6).to(dtype)  # enough tokens to want a workspace
    slots = torch.arange(230)
    shapes = [(torch.int32, (2, 300)), (torch.int32, (2, 230)), (torch.float32, (2, 300))]
    attributes: dict[str, int | float | str] = {"num_prefix": 2, "order": "tome_unsorted"}
    got, measured = run_case(
        plugin.harness, plugin.library, plugin.folder, "TokenMatch", attributes, [metric, slots], shapes
    )
    assert measured["workspace_bytes"] > 0
    for a, b in zip(got, token_match(metric, slots, 2, "tome_unsorted"), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("leftover", ["drop", "fuse", "nearest"])
def test_select_enqueue(plugin: Built, leftover: str) -> None:
    torch.manual_seed(2)
    score, metric = torch.rand(2, 50), torch.randn(2, 50, 8).half()
    slots, kept = torch.arange(31 + (leftover == "fuse")), torch.arange(31)
    inputs = [score, slots, *([metric] if leftover == "nearest" else []), *([kept] if leftover == "fuse" else [])]
    total = slots.shape[0]
    shapes = [(torch.int32, (2, 50)), (torch.int32, (2, total)), (torch.float32, (2, 50)), (torch.int32, (2,))]
    attributes: dict[str, int | float | str] = {"leftover": leftover, "order": "index"}
    got, _ = run_case(plugin.harness, plugin.library, plugin.folder, "TokenSelect", attributes, inputs, shapes)
    expected = token_select(
        score,
        slots,
        metric if leftover == "nearest" else None,
        kept if leftover == "fuse" else None,
        leftover=leftover,
        order="index",
    )
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("mode", ["wmean", "max"])
def test_reduce_enqueue(plugin: Built, mode: str, weighted: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    plan, index, _ = token_match(torch.randn(2, 41, 8), torch.arange(30))
    x, weight = torch.randn(2, 41, 24).to(dtype), torch.rand(2, 41)
    inputs = [x, plan, index, *([weight] if weighted else [])]
    shapes = [(dtype, (2, 30, 24)), (torch.float32, (2, 30))]
    got, _ = run_case(plugin.harness, plugin.library, plugin.folder, "TokenReduce", {"mode": mode}, inputs, shapes)
    for a, b in zip(got, token_reduce(x, plan, index, weight if weighted else None, mode), strict=True):
        assert torch.equal(a, b)


def test_enqueue_says_what_it_refuses(plugin: Built) -> None:
    metric, slots = torch.randn(1, 9, 4), torch.arange(2)
    shapes = [(torch.int32, (1, 9)), (torch.int32, (1, 2)), (torch.float32, (1, 9))]
    with pytest.raises(HarnessError, match="tmdeploy TokenMatch: more tokens to merge than half"):
        run_case(plugin.harness, plugin.library, plugin.folder, "TokenMatch", {}, [metric, slots], shapes)


def test_loads_in_nvidias_registry(plugin: Built) -> None:
    """In TensorRT's own lean runtime, which needs no GPU for this."""
    lean = os.environ.get("TMDEPLOY_LEAN_RUNTIME")
    if not lean:
        pytest.skip("TMDEPLOY_LEAN_RUNTIME does not name a libnvinfer_lean.so (wheel tensorrt-lean-cu13-libs)")
    run([plugin.harness, plugin.library, "registry", lean])
