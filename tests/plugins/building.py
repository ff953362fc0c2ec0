"""Builds of the native code, once a test session and shared by its workers."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tmdeploy.native.build import build, plugin_sources
from tmdeploy.native.headers import find_ort_headers
from tmdeploy.native.openvino import build_options
from tmdeploy.native.trust import checksum_path, write_checksum


def need_compiler() -> None:
    missing = [tool for tool in ("cmake", "g++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} here to build native code")


def built(target: str, relative: str, **options: str) -> Path:
    """Path of a built file; built anew when a source has changed."""
    need_compiler()
    folder = Path(tempfile.gettempdir()) / f"tmdeploy-test-build-{os.getuid()}" / _digest(target, options)
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / relative
    with (folder / "lock").open("w") as lock:  # workers of pytest-xdist share it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_file():
            build(folder, target, {"TMDEPLOY_BUILD_ORT": "OFF", "TMDEPLOY_WERROR": "ON", **options})
        if not checksum_path(made).is_file():
            write_checksum(made)  # without it no library is loaded
    return made


def built_kernels() -> Path:
    return built("tmdeploy_kernels", "kernels/cpu/libtmdeploy_kernels.so")


def built_ort() -> Path:
    headers = find_ort_headers()
    if headers is None:
        pytest.skip("no ONNX Runtime headers: tmdeploy plugins build --fetch-headers")
    options = {"TMDEPLOY_BUILD_ORT": "ON", "TMDEPLOY_ORT_INCLUDE": str(headers)}
    return built("tmdeploy_ort", "onnxruntime/libtmdeploy_ort.so", **options)


def built_openvino() -> Path:
    return built("tmdeploy_openvino", "openvino/libtmdeploy_openvino.so", **build_options())


def _digest(target: str, options: dict[str, str]) -> str:
    digest = hashlib.sha256(repr((target, sorted(options.items()))).encode())
    sources = plugin_sources()
    for path in sorted(sources.rglob("*")):
        with_cuda = "TMDEPLOY_BUILD_CUDA" in options or "cuda" not in path.parts
        if path.is_file() and path.relative_to(sources).parts[0] != "tensorrt" and with_cuda:
            digest.update(str(path.relative_to(sources)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
