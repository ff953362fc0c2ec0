"""A stand-in for what a loaded engine says about itself, for its profiler and for refitting; on top of `fakes.py`.

It checks how it is called; it shows nothing about what NVIDIA's inspector, profiler and refitter answer.
"""

from __future__ import annotations

import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import onnx

from tests.tensorrt.fakes import FakeCuda, FakeTensorrt, _Context, _Engine

NODES = {
    "embed": ("images/to_float16", "node_conv2d"),
    "qkv": ("node_MatMul_1",),
    "plan": ("block0/TokenMatch/half_a",),
    "reduce + mlp": ("block0/TokenReduce/y", "node_MatMul_2"),
    "plan 1": ("block1/TokenMatch",),
}


def detailed_json(profile: int = 0) -> str:
    """As TensorRT 10 and 11 write it with detailed verbosity; the first layer in an older way of naming types."""
    layers: list[dict[str, Any]] = []
    for number, (name, nodes) in enumerate(NODES.items()):
        kind = {"Format/Datatype": "Row major linear FP16 format"} if number == 0 else {"Datatype": "Half"}
        layers.append(
            {
                "Name": name,
                "LayerType": "PluginV3" if name == "plan 1" else "kgen",
                "Inputs": [{"Name": "a", "Dimensions": [2 + profile, 3], **kind}],
                "Outputs": [{"Name": "b", "Location": "Device", "Dimensions": [2 + profile, 4], **kind}],
                "TacticName": f"fast_{number}" if number else "",
                "TacticValue": "0x7",
                "StreamId": 0,
                "Metadata": "".join(f"[ONNX Layer: {node}]" for node in nodes),
            }
        )
    return json.dumps({"Layers": layers, "Bindings": ["images", "logits"]})


class _Flag(IntEnum):
    EXCLUDE_WEIGHTS = 0
    EXCLUDE_LEAN_RUNTIME = 1
    INCLUDE_REFIT = 2


class _OldFlag(IntEnum):
    EXCLUDE_WEIGHTS = 0
    EXCLUDE_LEAN_RUNTIME = 1


class FakeInspection(FakeTensorrt):
    """The module, with inspector, profiler and refitter.

    Args:
        answer: What the inspector says; None for `detailed_json`.
        profiles: Of the engine.
        old: As TensorRT 10.13, without engine statistics and `INCLUDE_REFIT`.
        missing: Weights that the refitter misses.
        refuses: Why the parser takes no weights.
    """

    def __init__(
        self,
        cuda: FakeCuda | None = None,
        *,
        answer: str | None = None,
        profiles: int = 2,
        steps: int = 0,
        old: bool = False,
        missing: tuple[str, ...] = (),
        refuses: str = "",
        loads: bool = True,
    ) -> None:
        super().__init__(cuda or FakeCuda(), steps=steps, loads=loads)
        self.answer, self.profiles, self.missing, self.refuses = answer, profiles, missing, refuses
        self.trusted: list[bool] = []
        self.refitted: onnx.ModelProto | None = None
        self.serialised: set[Any] = set()
        self.times = [1.0, 2.0, 3.0, 4.0, 5.0]
        self.LayerInformationFormat = SimpleNamespace(JSON=1)
        self.TensorIOMode = SimpleNamespace(INPUT=1)
        self.EngineStat = SimpleNamespace(TOTAL_WEIGHTS_SIZE=0)
        self.SerializationFlag = _OldFlag if old else _Flag
        self.IProfiler = type("IProfiler", (), {"__init__": lambda _: None})
        base, module = self.Runtime, self

        class Runtime(base):  # type: ignore[misc, valid-type]
            engine_host_code_allowed = False

            def deserialize_cuda_engine(self, content: bytes) -> Any:
                module.trusted.append(self.engine_host_code_allowed)
                if super().deserialize_cuda_engine(content) is None:
                    return None
                return _Inspected(module) if old else _Counted(module)

        class Refitter:
            def __init__(self, engine: Any, logger: Any) -> None:
                assert isinstance(engine, _Inspected)

            def refit_cuda_engine(self) -> bool:
                assert module.refitted is not None, "the parser brings the weights first"
                return not module.missing

            def get_missing_weights(self) -> list[str]:
                return list(module.missing)

        class OnnxParserRefitter:
            def __init__(self, refitter: Refitter, logger: Any) -> None:
                self.num_errors = 1 if module.refuses else 0

            def refit_from_bytes(self, content: bytes) -> bool:
                module.refitted = onnx.load_from_string(content)
                return not module.refuses

            def get_error(self, index: int) -> Any:
                return SimpleNamespace(desc=lambda: module.refuses)

        self.Runtime, self.Refitter, self.OnnxParserRefitter = Runtime, Refitter, OnnxParserRefitter  # type: ignore[misc]


class _Inspected(_Engine):
    module: FakeInspection

    num_io_tensors, num_layers, num_aux_streams = 2, len(NODES), 1
    streamable_weights_size, weight_streaming_scratch_memory_size = 3 << 20, 1 << 20
    refittable = False
    profiling_verbosity = SimpleNamespace(name="LAYER_NAMES_ONLY")

    @property
    def num_optimization_profiles(self) -> int:
        return self.module.profiles

    def get_device_memory_size_for_profile_v2(self, number: int) -> int:
        return (number + 1) << 20

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_mode(self, name: str) -> int:
        return 1 if name == "images" else 2

    def get_tensor_location(self, name: str) -> Any:
        return SimpleNamespace(name="DEVICE")

    def get_tensor_format_desc(self, name: str, number: int) -> str:
        return "Row major linear FP32 format (kLINEAR)"

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        assert name == "images", "outputs have no profile"
        return [(number + size, 3, 4, 4) for size in (1, 2, 3)]

    @property
    def get_engine_stat(self) -> Any:
        raise AttributeError("not in TensorRT 10.13")

    def create_execution_context(self) -> _Profiled:
        assert self.weight_streaming_budget_v2 is not None, "the budget first"
        return _Profiled(self.module)

    def create_engine_inspector(self) -> Any:
        return _Inspector(self.module)

    def create_serialization_config(self) -> Any:
        flags = self.module.serialised
        flags.add(self.module.SerializationFlag.EXCLUDE_WEIGHTS)  # the default of a stripped engine
        return SimpleNamespace(clear_flag=flags.discard, set_flag=flags.add)

    def serialize_with_config(self, serialization: Any) -> bytes:
        return b"ftrt" + bytes(900)


class _Counted(_Inspected):
    def get_engine_stat(self, stat: int) -> int:
        return 5 << 20


class _Inspector:
    execution_context: Any = None

    def __init__(self, module: FakeInspection) -> None:
        self.module = module

    def get_engine_information(self, form: int) -> str:
        assert form == self.module.LayerInformationFormat.JSON
        assert getattr(self.execution_context, "shape", None), "shapes first"
        if self.module.answer is not None:
            return self.module.answer
        return detailed_json(self.execution_context.profile)


class _Profiled(_Context):
    profiler: Any = None
    enqueue_emits_profile = True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.profiler is None or self.module.cuda.capturing is None, "no graph while profiling"
        return super().execute_async_v3(stream)

    def report_to_profiler(self) -> bool:
        assert not self.enqueue_emits_profile
        for name, time in zip(NODES, self.module.times, strict=False):
            self.profiler.report_layer_time(name, time + 0.1 * len(self.profiler.runs))
        return bool(self.module.times)
