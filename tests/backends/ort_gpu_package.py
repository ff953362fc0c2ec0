"""The real onnxruntime-gpu, on a machine without a GPU.

The wheel is unpacked beside the environment and used by other processes only. Its providers link CUDA. With stand-ins
for those libraries, whose memory is the host's and whose kernels do nothing, the CUDA provider starts: it reads its
options, says which nodes it takes, and copies weights "to the device". Nothing can be computed that way, but that much
is real.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fetching import unpacked_wheel

_LOUD = "ONNX RUNTIME'S GPU PACKAGE IS NOT CHECKED"
# Of cudaDeviceProp of CUDA 12 and 13: name, memory, warp and grid sizes, compute capability 9.0.
_PROPERTIES = """
int cudaGetDeviceProperties(char *p, int device) {
  memset(p, 0, 1008); strcpy(p, "stand-in");
  *(size_t *)(p + 288) = 1ull << 36; *(size_t *)(p + 296) = 49152;
  int *n = (int *)(p + 304);
  n[0] = 65536; n[1] = 32; n[4] = 1024; n[5] = n[6] = 1024; n[7] = 64; n[8] = 2147483647; n[9] = n[10] = 65535;
  n[14] = 9; n[20] = 132;
  return 0;
}"""
_ALLOCATE = "*p = aligned_alloc(256, (n + 255) / 256 * 256); return 0;"
_WRITTEN = {
    "cudaGetDeviceProperties": _PROPERTIES,
    "cudaGetDeviceProperties_v2": _PROPERTIES.replace("Properties(", "Properties_v2("),
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int *n) { *n = 1; return 0; }",
    "cudaGetDevice": "int cudaGetDevice(int *n) { *n = 0; return 0; }",
    "cudaSetDevice": 'int cudaSetDevice(int n) { return getenv("STAND_IN_WITHOUT_GPU") ? 100 : 0; }',
    "cudaGetErrorString": 'const char *cudaGetErrorString(int e) { return "no CUDA-capable device is detected"; }',
    "cudaGetErrorName": 'const char *cudaGetErrorName(int e) { return "cudaErrorNoDevice"; }',
    "cudaDeviceGetAttribute": "int cudaDeviceGetAttribute(int *v, int a, int d) { *v = 1; return 0; }",
    "cudaDriverGetVersion": "int cudaDriverGetVersion(int *v) { *v = 13000; return 0; }",
    "cudaRuntimeGetVersion": "int cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }",
    "cudaMemGetInfo": "int cudaMemGetInfo(size_t *f, size_t *t) { *f = *t = 1ull << 36; return 0; }",
    "cudaMalloc": f"int cudaMalloc(void **p, size_t n) {{ {_ALLOCATE} }}",
    "cudaMallocHost": f"int cudaMallocHost(void **p, size_t n) {{ {_ALLOCATE} }}",
    "cudaHostAlloc": f"int cudaHostAlloc(void **p, size_t n, unsigned f) {{ {_ALLOCATE} }}",
    "cudaFree": "int cudaFree(void *p) { free(p); return 0; }",
    "cudaFreeHost": "int cudaFreeHost(void *p) { free(p); return 0; }",
    "cudaMemcpy": "int cudaMemcpy(void *d, const void *s, size_t n, int k) { memcpy(d, s, n); return 0; }",
    "cudaMemcpyAsync": "int cudaMemcpyAsync(void *d, const void *s, size_t n, int k, void *q) "
    "{ memcpy(d, s, n); return 0; }",
    "cudaMemset": "int cudaMemset(void *d, int v, size_t n) { memset(d, v, n); return 0; }",
    "cudaMemsetAsync": "int cudaMemsetAsync(void *d, int v, size_t n, void *q) { memset(d, v, n); return 0; }",
    "__cudaRegisterFatBinary": "static void *binary; void **__cudaRegisterFatBinary(void *b) { return &binary; }",
}
_MAKE_HANDLES = re.compile(r"cublas(Lt)?Create(_v2)?|cuda(Stream|Event)Create(WithFlags)?")


def gpu_package() -> Path:
    """A folder for PYTHONPATH with onnxruntime-gpu, of the installed ONNX Runtime's version. Skips, loudly, without."""
    unused = ("onnxruntime/transformers/", "onnxruntime/quantization/", "onnxruntime/tools/")
    return unpacked_wheel(f"onnxruntime-gpu=={importlib.metadata.version('onnxruntime')}", _LOUD, without=unused)


def provider_library(package: Path, name: str) -> Path:
    """The shared library of a provider: `cuda` or `tensorrt`."""
    return package / "onnxruntime" / "capi" / f"libonnxruntime_providers_{name}.so"


def stand_ins_for_cuda(package: Path, folder: Path) -> Path:
    """A folder for LD_LIBRARY_PATH with everything of CUDA that the CUDA provider links."""
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip(f"{_LOUD}: no gcc and nm here to make the stand-ins with")
    provider = provider_library(package, "cuda")
    linked = re.findall(r"NEEDED.*\[(libcu[^\]]+)\]", _said("readelf", "-d", provider))
    functions: dict[str, list[str]] = {name: [] for name in linked}
    for name, version in re.findall(r" U (_{0,2}cu\w+)(?:@+(\S+))?$", _said("nm", "-D", provider), re.MULTILINE):
        prefix = re.match(r"cublasLt|cublas|curand|cudnn|cufft", name)
        place = version or f"lib{prefix[0] if prefix else 'cuda'}.so"
        functions[next((one for one in linked if one.startswith(place)), linked[0])].append(name)
    for library, names in functions.items():
        lines = ["#include <stdlib.h>", "#include <string.h>", *map(_function, names)]
        (folder / f"{library}.c").write_text("\n".join(lines) + "\n")
        (folder / f"{library}.map").write_text(f"{library} {{ global: *; }};\n")
        options = [
            f"-Wl,-soname,{library}",
            f"-Wl,--version-script={folder / library}.map",
            "-o",
            str(folder / library),
        ]
        subprocess.run(["gcc", "-w", "-shared", "-fPIC", str(folder / f"{library}.c"), *options], check=True)
    return folder


def stand_ins_for_tensorrt(package: Path, folder: Path) -> Path:
    """A folder for LD_LIBRARY_PATH, beside that for CUDA, with which the TensorRT provider gets as far as its options.

    Its plugin registry is empty, and it makes nothing: the first builder or runtime that is used is a crash.
    """
    provider = provider_library(package, "tensorrt")
    linked = re.findall(r"NEEDED.*\[(lib(?:nv|cudnn)[^\]]+)\]", _said("readelf", "-d", provider))
    empty = "".join(f"virtual void *f{number}() {{ return nullptr; }}\n" for number in range(40))
    functions = "".join(
        f"void *{name}() {{ return nullptr; }}\n"
        for name in re.findall(r" U ((?:create|cudnn)\w+)", _said("nm", "-D", provider))
    )
    source = folder / "tensorrt.cpp"
    source.write_text(
        f"struct Registry {{ {empty} }} registry;\n"
        f'extern "C" {{\nvoid *getPluginRegistry() {{ return &registry; }}\n'
        f"int getInferLibVersion() {{ return 101400; }}\n"
        f"bool initLibNvInferPlugins(void *, const char *) {{ return true; }}\n"
        f"{functions}}}\n"
    )
    for library in linked:
        (folder / f"{library}.map").write_text(f"{library} {{ global: *; }};\n")
        versioned = [f"-Wl,--version-script={folder / library}.map"] if "cudnn" in library else []
        command = ["g++", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run([*command, *versioned], check=True)
    return folder


def environment(package: Path, *libraries: Path, **variables: str) -> dict[str, str]:
    """For a process that uses the package, with stand-ins or without; it takes a native library that is named."""
    added = {"PYTHONPATH": str(package), "TMDEPLOY_NATIVE": "1", **variables}
    if libraries:
        added["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
    return {**os.environ, **added}


def _function(name: str) -> str:
    if name in _WRITTEN:
        return _WRITTEN[name]
    if _MAKE_HANDLES.fullmatch(name):
        return f"long {name}(void **p) {{ static int handle; *p = &handle; return 0; }}"
    return f"long {name}(void) {{ return 0; }}"


def _said(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
