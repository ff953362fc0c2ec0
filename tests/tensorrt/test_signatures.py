"""Every class, enum value, property and call of TensorRT and CUDA in our code exists in NVIDIA's real bindings.

Full TensorRT cannot run in CI, so a renamed or removed name would be found by the first user. The code is read as a
syntax tree: variables are known by name to hold which class, and each `variable.member` and each number of arguments
is looked up in the bindings of three releases and of TensorRT-RTX.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import tmdeploy.tensorrt
from tests.tensorrt.bindings import Names, full_bindings, rtx_bindings
from tests.tensorrt.engines import needs_rtx
from tmdeploy.tensorrt.build.network import _HARDWARE, _VERBOSITY
from tmdeploy.tensorrt.run.validity import _REASONS

FOLDER = Path(tmdeploy.tensorrt.__file__).parent
# Ahead-of-time plugins use tensorrt.plugin, which has tests of its own.
SOURCES = [path for path in sorted(FOLDER.rglob("*.py")) if "plugin" not in path.parts]
# Which class a variable of this name holds, in any module of the package.
HOLDERS = {
    "module": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "registry": "IPluginRegistry",
    "creator": "IPluginCreatorV3One",
    "runtime": "Runtime",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "flags": "BuilderFlag",
    "kinds": "ILogger.Severity",
    "tensor": "ITensor",
    "profile": "IOptimizationProfile",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
    "serialization": "ISerializationConfig",
}
# These names hold other things elsewhere.
ONLY_IN = {
    "error": {"network.py"},
    "tensor": {"network.py"},
    "profile": {"network.py"},
    "network": {"network.py", "run.py"},
    "runtime": set(),
    "config": {"network.py", "run.py"},
    "flags": {"network.py"},
    "engine": {"loaded.py", "memory.py", "opening.py", "refit.py"},
    "context": {"loaded.py"},
    "inspector": {"loaded.py"},
}
# These names are of another class in one file.
ELSEWHERE = {
    ("runtime", "opening.py"): "Runtime",
    ("runtime", "validity.py"): "Runtime",
    ("kinds", "refit.py"): "SerializationFlag",
}
# Looked up by name, because not every release has them: class, member, releases without it.
OPTIONAL = (
    ("ICudaEngine", "get_engine_stat", ("10.13",)),
    ("EngineStat", "TOTAL_WEIGHTS_SIZE", ("10.13",)),
    ("SerializationFlag", "INCLUDE_REFIT", ("10.13",)),
)
NOT_OF_THEM = {("module", "__version__"), ("network", "inputs"), ("network", "outputs"), ("network", "layers")}
RTX_ONLY = {
    ("", "ComputeCapability"),
    ("", "EngineValidity"),
    ("", "EngineInvalidityDiagnostics"),
    ("EngineValidity", "INVALID"),
    ("Runtime", "get_engine_validity"),
    ("Runtime", "engine_header_size"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}


@dataclass(frozen=True)
class Use:
    """`holder.member`, or `holder.member(arguments)`."""

    owner: str
    member: str
    arguments: int | None
    where: str


def _uses() -> tuple[Use, ...]:
    return tuple(sorted({use for path in SOURCES for use in _uses_of(path)}, key=lambda use: use.where))


def _uses_of(path: Path) -> Iterator[Use]:
    tree = ast.parse(path.read_text())
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = _owner(node.value, path.name)
        if owner is None or (_name(node.value), node.attr) in NOT_OF_THEM:
            continue
        call = calls.get(id(node))
        count = None if call is None else len(call.args) + len(call.keywords)
        if node.attr == "__init__" and count is not None:
            count -= 1  # a base class's, called with self
        yield Use(owner, node.attr, count, f"{path.name}:{node.lineno}")


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _owner(node: ast.expr, file: str) -> str | None:
    """The class behind an expression: a known variable, or an enum or class of the module."""
    name = _name(node)
    if (name, file) in ELSEWHERE:
        return ELSEWHERE[name, file]
    if name in HOLDERS and file in ONLY_IN.get(name, {file}) and not (name == "module" and file == "gpu.py"):
        return HOLDERS[name]
    if isinstance(node, ast.Attribute):
        owner = _owner(node.value, file)
        if owner is not None and node.attr[:1].isupper():
            return f"{owner}.{node.attr}".lstrip(".")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        returned = {"get_plugin_registry": "IPluginRegistry", "get_timing_cache": "ITimingCache"}
        return returned.get(node.func.attr)
    return None


USES = _uses()


def _check(names: Names, *, rtx: bool) -> None:
    problems = []
    optional = {(owner, member) for owner, member, _ in OPTIONAL} | {("", "EngineStat")}
    for use in USES:
        if (use.owner, use.member) in RTX_ONLY and not rtx:
            continue
        if (use.owner, use.member) in optional:
            continue
        if use.owner == "":
            known, signature = use.member in names, names.get(use.member, {}).get("__init__", "")
        else:
            members = names.get(use.owner)
            if members is None and use.owner == "ComputeCapability" and not rtx:
                continue
            known = members is not None and use.member in members
            signature = (members or {}).get(use.member, "")
        if not known:
            problems.append(f"{use.where}: {use.owner or 'module'}.{use.member} does not exist")
        elif use.arguments is not None and not _takes(signature, use.arguments):
            problems.append(f"{use.where}: {use.owner}.{use.member} does not take {use.arguments}: {signature[:200]}")
    assert problems == []


def _takes(signature: str, given: int) -> bool:
    """Whether a pybind11 docstring has an overload with that many arguments."""
    overloads = re.findall(r"^(?:\d+\. )?\w+\((.*)\) ->", signature, re.MULTILINE)
    for overload in overloads:
        parameters = [part for part in _split(overload) if part and not part.startswith("self:")]
        required = [part for part in parameters if "=" not in part and not part.startswith("*")]
        if len(required) <= given <= len(parameters) or any(part.startswith("*") for part in parameters):
            return True
    return False


def _split(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [*parts, current.strip()]


def test_the_reader_sees_our_calls():
    """A reader that finds nothing would pass everything."""
    seen = {(use.owner, use.member) for use in USES}
    for expected in (
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_memory_pool_limit"),
        ("BuilderFlag", "STRIP_PLAN"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("OnnxParser", "parse"),
        ("IOptimizationProfile", "set_shape_input"),
        ("IPluginRegistry", "load_library"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "create_execution_context"),
        ("ICudaEngine", "get_engine_stat"),
        ("ICudaEngine", "streamable_weights_size"),
        ("EngineStat", "TOTAL_WEIGHTS_SIZE"),
        ("IExecutionContext", "execute_async_v3"),
        ("ITimingCache", "serialize"),
        ("ILogger.Severity", "INTERNAL_ERROR"),
        ("EngineInspector", "get_engine_information"),
        ("LayerInformationFormat", "JSON"),
        ("IExecutionContext", "report_to_profiler"),
        ("IExecutionContext", "profiler"),
        ("IProfiler", "__init__"),
        ("ICudaEngine", "get_device_memory_size_for_profile_v2"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("OnnxParserRefitter", "refit_from_bytes"),
        ("Refitter", "get_missing_weights"),
        ("SerializationFlag", "EXCLUDE_WEIGHTS"),
        ("ISerializationConfig", "clear_flag"),
        ("ICudaEngine", "serialize_with_config"),
        ("BuilderFlag", "REFIT"),
    ):
        assert expected in seen
    assert len(seen) > 50


def test_the_reader_counts_arguments():
    overloads = ("f(*args, **kwargs)", "1. f(self: a.B, x: list[int, str]) -> int", "2. f(self: a.B) -> int")
    doc = "\n\n".join(overloads)
    assert [_takes(doc, count) for count in (0, 1, 2)] == [True, True, False]
    assert [_takes("g(self: B, x: int, y: str = 'a') -> None", count) for count in (0, 1, 2, 3)] == [0, 1, 1, 0]


@pytest.mark.parametrize("release", ["==10.13.3.9", "==10.16.1.11", "==11.4.0.106"])
def test_full_tensorrt(release: str):
    names = full_bindings(release)
    _check(names, rtx=False)
    assert {"AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"} == set(_HARDWARE.values())
    assert set(_HARDWARE.values()) <= set(names["HardwareCompatibilityLevel"])
    assert set(_VERBOSITY.values()) <= set(names["ProfilingVerbosity"])
    for callback in ("phase_start", "step_complete", "phase_finish"):
        assert callback in names["IProgressMonitor"]
    assert _takes(names["IProfiler"]["report_layer_time"], 2)
    for owner, member, without in OPTIONAL:
        assert (member in names.get(owner, {})) != release[2:].startswith(without), (owner, member)
    assert _takes(names["ICudaEngine"].get("get_engine_stat", "get_engine_stat(self: X, stat: Y) -> int"), 1)


@needs_rtx
def test_tensorrt_rtx():
    names = rtx_bindings()
    _check(names, rtx=True)
    assert set(_VERBOSITY.values()) <= set(names["ProfilingVerbosity"])
    assert "SM89" in names["ComputeCapability"]
    assert set(_REASONS) <= set(names["EngineInvalidityDiagnostics"])
    assert all(member in names[owner] for owner, member, _ in OPTIONAL)


def test_cuda_runtime():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="CUDA CALLS ARE NOT CHECKED: no cuda-bindings")
    calls = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            first = node.args[0] if node.args else None
            if node.func.attr == "call" and isinstance(first, ast.Constant):
                calls.append((str(first.value), len(node.args) - 1, path.name))
            elif node.func.attr.startswith("cuda") and _name(node.func.value) in {"cudart", "api"}:
                calls.append((node.func.attr, len(node.args), path.name))
    names = {name for name, _, _ in calls}
    assert {"cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaGraphInstantiate", "cudaGetDeviceCount"} <= names
    assert {"cudaEventCreateWithFlags", "cudaEventRecord", "cudaEventElapsedTime", "cudaEventSynchronize"} <= names
    assert {"cudaEventDestroy", "cudaMemGetInfo", "cudaDeviceGetPCIBusId"} <= names
    for name, given, file in calls:
        function = getattr(runtime, name, None)
        assert function is not None, f"{file}: {name} does not exist"
        wanted = _parameters(function)
        assert given == wanted, f"{file}: {name} takes {wanted} arguments, not {given}"
    for enum, value in (
        ("cudaMemcpyKind", "cudaMemcpyHostToDevice"),
        ("cudaMemcpyKind", "cudaMemcpyDeviceToHost"),
        ("cudaMemcpyKind", "cudaMemcpyDeviceToDevice"),
        ("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal"),
        ("cudaError_t", "cudaErrorMemoryAllocation"),
    ):
        assert hasattr(getattr(runtime, enum), value)
    assert isinstance(runtime.cudaStreamNonBlocking, int)
    assert isinstance(runtime.cudaEventDefault, int)


def _parameters(function: object) -> int:
    try:
        return len(inspect.signature(function).parameters)  # type: ignore[arg-type]
    except ValueError:
        first = (getattr(function, "__doc__", "") or "").splitlines()[0]
        inside = re.search(r"\((.*)\)", first)
        assert inside, f"no signature: {first}"
        return len([part for part in _split(inside[1]) if part])
