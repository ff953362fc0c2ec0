"""A stand-in for the building half of full TensorRT: parser, plugin registry, builder.

The parser makes a plugin layer of every node whose plugin it knows, as `tensorrt.plugin` or a library registered it,
and a layer of another kind of any other node. It shows which way `build` goes and what it does about a plugin that is
missing; it shows nothing about NVIDIA's parser and builder, in which none of this ran.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx


class _Flag(IntEnum):
    TF32 = 0
    VERSION_COMPATIBLE = 1
    STRIP_PLAN = 2
    WEIGHT_STREAMING = 3
    REFIT = 4


class _Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class FakePlugins:
    """`tensorrt.plugin`: remembers what is registered. `broken` raises, as a changed interface would."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken, self.op = broken, SimpleNamespace()
        self.registered: dict[str, list[str]] = {}
        self.TensorDesc = self.AutoTuneCombination = self.KernelLaunchParams = self.SymIntExprs = type("Any", (), {})
        self.register, self.autotune, self.aot_impl = map(self._decorator, ("register", "autotune", "aot_impl"))

    def _decorator(self, kind: str) -> Any:
        def of(name: str) -> Any:
            if self.broken:
                raise TypeError("register() takes 3 arguments\nand a half")
            self.registered.setdefault(name, []).append(kind)
            setattr(self.op, name.partition("::")[0], True)
            return lambda function: function

        return of


class FakeBuilding:
    """The module `tensorrt`.

    Args:
        plugins: Its module `plugin`; None for a version without ahead-of-time plugins.
        forgets: Type of the nodes that the parser makes something else of, without a word.
    """

    def __init__(self, plugins: FakePlugins | None, *, forgets: str = "") -> None:
        self.__version__ = "11.4.0.106"
        self.plugins, self.forgets = plugins, forgets
        self.parsed = onnx.ModelProto()
        self.libraries: list[str] = []
        self.embedded: list[str] = []
        self.flags: set[str] = set()
        if plugins is not None:
            self.QuickPluginCreationRequest = object()
        self.BuilderFlag = _Flag
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.ProfilingVerbosity = SimpleNamespace(DETAILED=2)
        self.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS=1)
        self.ILogger = type("ILogger", (), {"Severity": _Severity})
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.Builder = lambda _: _Builder(self)
        self.OnnxParser = lambda network, _: _Parser(self, network)

    def knows(self, namespace: str, kind: str) -> bool:
        if namespace == "tmdeploy":
            return bool(self.libraries)
        return self.plugins is not None and f"{namespace}::{kind}" in self.plugins.registered


class _Parser:
    num_errors = 0

    def __init__(self, module: FakeBuilding, network: _Network) -> None:
        self.module, self.network = module, network

    def parse(self, content: bytes) -> bool:
        model = onnx.load_from_string(content)
        self.module.parsed = model
        bodies = {(function.domain, function.name) for function in model.functions}
        for node in model.graph.node:
            namespace = next((a.s.decode() for a in node.attribute if a.name == "plugin_namespace"), None)
            plugin = namespace is not None and self.module.knows(namespace, node.op_type)
            if node.domain and not plugin and (node.domain, node.op_type) not in bodies:
                return False
            kind = "PLUGIN_V3" if plugin and node.op_type != self.module.forgets else "ELEMENTWISE"
            self.network.layers.append(SimpleNamespace(name=node.name, type=SimpleNamespace(name=kind)))
        return True


class _Network:
    num_inputs = num_outputs = 0

    def __init__(self) -> None:
        self.layers: list[Any] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> Any:
        return self.layers[index]

    def get_input(self, index: int) -> Any:
        raise IndexError(index)

    get_output = get_input


class _Builder:
    def __init__(self, module: FakeBuilding) -> None:
        self.module = module

    def create_network(self, flags: int) -> _Network:
        assert flags == 2
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config(self.module)

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *_: None)

    def get_plugin_registry(self) -> Any:
        creator = SimpleNamespace(name="TokenMatch", plugin_namespace="tmdeploy")

        def load(path: str) -> object:
            assert Path(path).is_file()
            self.module.libraries.append(path)
            return object()

        return SimpleNamespace(load_library=load, all_creators=[creator])

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        self.module.embedded = list(getattr(config, "plugins_to_serialize", []))
        return b"ftrt" + bytes(len(network.layers))


class _Config:
    def __init__(self, module: FakeBuilding) -> None:
        self.module = module
        module.flags = {"TF32"}  # on by default

    def clear_flag(self, flag: _Flag) -> None:
        self.module.flags.discard(flag.name)

    def set_flag(self, flag: _Flag) -> None:
        self.module.flags.add(flag.name)

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, content: bytes) -> bytearray:
        return bytearray(content)

    def set_timing_cache(self, cache: bytearray, ignore_mismatch: bool) -> None: ...

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"times")
