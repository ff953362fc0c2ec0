"""NVIDIA's own `tensorrt.plugin`, unmodified, over a minimal stand-in for the compiled module of TensorRT's bindings.

The wheel `tensorrt-cu13-bindings` has `plugin/*.py` as plain Python. What it takes from the compiled module is here:
the enumerations, descriptors and base classes, a registry, and symbolic dimensions that can be evaluated.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import importlib.machinery
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.fetching import one_at_a_time

# Two ends of what tmdeploy takes. One file each, whatever Python runs the tests: only the plain Python in it is used.
SHA256 = {
    "10.13.3.9": "f40c9e488af125b232fcca85ac4b21e090d7b1be55c3062eeaf48c2a9a9ed808",
    "11.4.0.106": "d072ac2a095e2be749fefc847adfb25d5ebe70303401df62ede8fe67a59f27fc",
}
_NEWEST = max(SHA256, key=lambda version: int(version.split(".")[0]))
# For tests whose work is in the kernels: one version is enough. The fixture `bindings` has both.
newest = pytest.mark.parametrize("bindings", [_NEWEST], indirect=True)
_TAG = "cp311-none-manylinux_2_28_x86_64"


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tmdeploy" / "tensorrt-bindings"


def unpacked(version: str) -> Path:
    """Folder of the wheel's plain Python, fetched once; skips with the reason where it cannot be had."""
    with one_at_a_time(cache()):
        return _unpacked(version)


def _unpacked(version: str) -> Path:
    folder = cache() / version
    package = folder / "tensorrt_bindings"
    if (package / "plugin" / "__init__.py").is_file():
        return package
    download = cache() / "download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", "3.11", "--abi", "none", "--implementation", "cp"]
    command += ["--platform", "manylinux_2_28_x86_64", "--dest", str(download), f"tensorrt-cu13-bindings=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    wheel = download / f"tensorrt_cu13_bindings-{version}-{_TAG}.whl"
    if done.returncode != 0 or not wheel.is_file():
        pytest.skip(f"the wheel tensorrt-cu13-bindings {version} cannot be had: {done.stderr.strip()}")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256[version]:
        pytest.skip(f"{wheel.name} is not the file that was checked")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
        # the probed file last: a folder that has it is complete
        for name in sorted(names, key=lambda item: item.endswith("plugin/__init__.py")):
            archive.extract(name, folder)
    return package


class DimensionOperation(enum.Enum):
    SUM = enum.auto()
    PROD = enum.auto()
    MAX = enum.auto()
    MIN = enum.auto()
    SUB = enum.auto()
    EQUAL = enum.auto()
    LESS = enum.auto()
    FLOOR_DIV = enum.auto()
    CEIL_DIV = enum.auto()


_COMPUTE = {
    DimensionOperation.SUM: lambda a, b: a + b,
    DimensionOperation.PROD: lambda a, b: a * b,
    DimensionOperation.MAX: max,
    DimensionOperation.MIN: min,
    DimensionOperation.SUB: lambda a, b: a - b,
    DimensionOperation.EQUAL: lambda a, b: int(a == b),
    DimensionOperation.LESS: lambda a, b: int(a < b),
    DimensionOperation.FLOOR_DIV: lambda a, b: a // b,
    DimensionOperation.CEIL_DIV: lambda a, b: -(-a // b),
}


class DimensionExpr:
    """A constant, a dynamic dimension, or an operation on two."""

    def __init__(self, value: int | str | tuple[DimensionOperation, DimensionExpr, DimensionExpr]) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return isinstance(self.value, int)

    def get_constant_value(self) -> int:
        assert isinstance(self.value, int)
        return self.value

    def evaluate(self, dimensions: dict[str, int]) -> int:
        if isinstance(self.value, int):
            return self.value
        if isinstance(self.value, str):
            return dimensions[self.value]
        operation, a, b = self.value
        return int(_COMPUTE[operation](a.evaluate(dimensions), b.evaluate(dimensions)))


class ExprBuilder:
    def constant(self, value: int) -> DimensionExpr:
        assert -(2**63) <= value < 2**63
        return DimensionExpr(int(value))

    def operation(self, operation: DimensionOperation, a: DimensionExpr, b: DimensionExpr) -> DimensionExpr:
        assert isinstance(a, DimensionExpr)
        assert isinstance(b, DimensionExpr)
        made = DimensionExpr((operation, a, b))
        return DimensionExpr(made.evaluate({})) if a.is_constant() and b.is_constant() else made


class Dims(list[int]):
    MAX_DIMS = 8


class DimsExprs(list[Any]):
    def __init__(self, value: int | list[DimensionExpr]) -> None:
        super().__init__([None] * value if isinstance(value, int) else value)


@dataclass
class PluginTensorDesc:
    dims: Dims = field(default_factory=Dims)
    type: Any = None
    format: Any = None
    scale: float = 0.0


@dataclass
class DynamicPluginTensorDesc:
    desc: PluginTensorDesc
    min: Dims
    opt: Dims
    max: Dims


@dataclass
class PluginField:
    name: str
    data: Any
    type: Any = None


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        key = (creator.name, creator.plugin_version, namespace)
        assert key not in self.creators
        self.creators[key] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators.get((name, version, namespace))


class Logger:
    WARNING = "warning"

    def log(self, severity: str, message: str) -> None:
        pass


def _stand_in() -> ModuleType:
    module = ModuleType("tensorrt")
    registry = Registry()
    types = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4")
    numbers = "FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32 CHAR DIMS UNKNOWN BF16 INT64 FP8"
    bases = "IPluginV3 IPluginV3QuickCore IPluginV3QuickBuild IPluginV3QuickAOTBuild IPluginV3QuickRuntime"
    for name in [*bases.split(), "IPluginCreatorV3Quick", "ISymExpr", "ITensor", "IExprBuilder"]:
        setattr(module, name, type(name, (), {}))
    vars(module).update(
        DataType=types,
        float32=types["FLOAT"], float16=types["HALF"], bfloat16=types["BF16"],
        int32=types["INT32"], int64=types["INT64"],
        TensorFormat=enum.Enum("TensorFormat", "LINEAR CHW2 HWC"),
        PluginFieldType=enum.Enum("PluginFieldType", numbers),
        PluginArgType=enum.Enum("PluginArgType", "INT"),
        PluginArgDataType=enum.Enum("PluginArgDataType", "INT8 INT16 INT32"),
        TensorRTPhase=enum.Enum("TensorRTPhase", "BUILD RUNTIME"),
        LayerType=enum.Enum("LayerType", "SHUFFLE PLUGIN_V3"),
        QuickPluginCreationRequest=enum.Enum(
            "QuickPluginCreationRequest", "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT"
        ),
        PluginField=PluginField, PluginFieldCollection=list, PluginTensorDesc=PluginTensorDesc,
        DynamicPluginTensorDesc=DynamicPluginTensorDesc, Dims=Dims, DimsExprs=DimsExprs, IDimensionExpr=DimensionExpr,
        DimensionOperation=DimensionOperation, Logger=Logger, get_plugin_registry=lambda: registry,
    )  # fmt: skip
    return module


@contextmanager
def tensorrt_bindings(version: str) -> Iterator[SimpleNamespace]:
    """`tensorrt` and `tensorrt.plugin` for the block; afterwards they are gone again."""
    package = unpacked(version)
    saved = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "tensorrt"}
    for name in saved:
        del sys.modules[name]
    trt = _stand_in()
    trt.__path__ = [str(package)]
    trt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None, is_package=True)  # torch looks for one
    sys.modules["tensorrt"] = trt
    try:
        yield SimpleNamespace(trt=trt, trtp=importlib.import_module("tensorrt.plugin"), version=version)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]:
            del sys.modules[name]
        sys.modules.update(saved)
