from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from tests.tensorrt.conftest import Exported
from tmdeploy.errors import ArtifactError
from tmdeploy.graph.expand_ops import ExpandOps
from tmdeploy.graph.planners import deciding_nodes
from tmdeploy.tensorrt.build.log import by_profile, read_io, read_layers, read_memory, type_word
from tmdeploy.tensorrt.build.roles import node_roles
from tmdeploy.tensorrt.build.source import load_source
from tmdeploy.tensorrt.record.layers import (
    IoTensor,
    Layer,
    LayerFile,
    Listing,
    Operand,
    classified,
    layers_path,
    read_layers_file,
    step_part,
    write_layers,
)

# Lines of a TensorRT-RTX 1.7.1 build log, some operands left out; @ joins two lines.
LISTING = """Engine Layer Information:
Layers:
Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: nothing, Location: @
Device, Dimensions: [1], Datatype: Bool, Format: Format not available due to dynamic shapes }]
Name: __myl_FcAdd_myl1_4, LayerType: runtime_fusion, Inputs: [ { Name: a, Dimensions: [-1,384], Strides: [384,1], @
StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: b, @
Dimensions: [384,1152], Strides: [1152,1], StrideOrder: [1,0], Datatype: Float, Format: (Linear) Row major linear @
format }], Outputs: [ { Name: c, Dimensions: [-1,1152], Strides: [1152,1], StrideOrder: [1,0], Datatype: Half, @
Format: (Linear) Row major linear format }, { Name: d, Dimensions: [-1], Strides: [1], StrideOrder: [0], @
Datatype: Int64, Format: (Linear) Row major linear format }], TacticName: fast_0x12, StreamId: 0, Metadata: @
[ONNX Layer: node_MatMul_23][ONNX Layer: node_linear]

I/O Tensors:
 Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,8,8], Location: Device, IsShapeInferenceIO: @
false, ProfileInfo: [ { MinShape: [1,3,8,8], OptShape: [2,3,8,8], MaxShape: [4,3,8,8], Format: Row major linear @
FP32 format (kLINEAR) }, { MinShape: [8,3,8,8], OptShape: [8,3,8,8], MaxShape: [9,3,8,8], Format: Row major @
linear FP32 format (kLINEAR) }]
 Name: r, IOMode: Input, DataType: Int64, Dimensions: [2], Location: Host, IsShapeInferenceIO: true, @
ProfileInfo: [ { MinShape: [2], OptShape: [2], MaxShape: [2], Format: Row major linear INT64 format (kLINEAR) }]
""".replace("@\n", "")
LOG = [
    "Max Scratch Memory: 16956928 bytes",
    "Total Activation Memory: 16956928 bytes",
    "Total Weights Memory: 45097856 bytes",
    "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 43 MiB, GPU 7 MiB",
    LISTING,
]


def test_layers_of_a_build_log():
    copy, product = read_layers(LOG)
    assert (copy.name, copy.type, copy.outputs) == (
        "[ShapeHostToDeviceCopy 0]",
        "ShapeHostToDevice",
        (Operand(type="bool", shape=(1,)),),
    )
    assert product == Layer(
        name="__myl_FcAdd_myl1_4",
        type="runtime_fusion",
        tactic="fast_0x12",
        nodes=("node_MatMul_23", "node_linear"),
        inputs=(Operand(type="half", shape=(-1, 384)),),
        outputs=(Operand(type="half", shape=(-1, 1152)), Operand(type="int64", shape=(-1,))),
    )
    assert product.types == "half > half/int64"


def _named(*names: str) -> list[Layer]:
    return [Layer(name=name) for name in names]


def test_layers_of_each_profile():
    """As TensorRT-RTX 1.7.1 names them with a static schedule, and with a schedule as input."""
    first, second = _named("a_myl0_0", "conv_myl0_1"), _named("a_myl1_0", "conv [profile 1]_myl1_1")
    assert by_profile([*first, *second], 2) == (tuple(first), tuple(second))
    first = _named("[ShapeHostToDeviceCopy 0]", "a_myl1_0", "conv_myl1_1")
    second = _named("[ShapeHostToDeviceCopy 0] [profile 1]", "a_myl3_0", "conv [profile 1]_myl3_1")
    assert by_profile([*first, *second], 2) == (tuple(first), tuple(second))
    assert by_profile(first, 1) == (tuple(first),)
    assert by_profile(first, 2) is None
    assert by_profile([*first, *second], 1) is None
    assert by_profile([], 1) is None


def test_memory_and_ports_of_a_build_log():
    memory = read_memory(LOG)
    assert memory is not None
    assert (memory.activation_bytes, memory.weights_bytes, memory.builder_peak_gpu_mib) == (16956928, 45097856, 7)
    assert memory.host_persistent_bytes is None
    assert read_memory(["nothing about it", "Memory is mentioned"]) is None
    images, r = read_io(LOG)
    assert images.location == "device"
    assert images.ranges[1] == ((8, 3, 8, 8), (8, 3, 8, 8), (9, 3, 8, 8))
    assert images.formats == ("Row major linear FP32 format (kLINEAR)",) * 2
    assert r == IoTensor(
        name="r", location="host", formats=("Row major linear INT64 format (kLINEAR)",), ranges=(((2,),) * 3,)
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Half", "half"),
        ("BFloat16", "bfloat16"),
        ("Row major linear FP16 format", "half"),
        ("Channel major FP32 format where C % 4 == 0", "float"),
        ("Int64", "int64"),
        ("Row major linear format", ""),
        ("N/A due to dynamic shapes", ""),
    ],
)
def test_types_have_one_word(text: str, word: str):
    assert type_word(text) == word


@pytest.mark.parametrize(
    ("node", "part", "block"),
    [
        ("block3/TokenMatch", "plan", 3),  # a plugin layer
        ("block3/TokenMatch/half_a", "plan", 3),
        ("block10/TokenSelect/order", "plan", 10),
        ("block3/TokenReduce/y", "reduce", 3),
        ("block3/TokenReduce_1/wsum", "reduce", 3),
        ("block3/TokenReduce/wsum", "sizes", 3),
        ("block3/TokenReduce/source_weight_raw", "sizes", 3),
        ("block0/size_in/to_float", "sizes", 0),
        ("step_1_tokens", "schedule", 7),
        ("r_at_least", "schedule", None),
        ("step_9_tokens", "schedule", None),
        ("node_mean", None, None),
        ("block3/signal", None, None),
    ],
)
def test_parts_of_a_step(node: str, part: str | None, block: int | None):
    assert step_part(node, (4, 7)) == (part, block)


def _kind(*nodes: str, layer_type: str = "kgen", name: str = "x", roles: dict[str, str] | None = None) -> Layer:
    return classified(Layer(name=name, type=layer_type, nodes=nodes), roles or {}, (0, 3))


def test_what_a_layer_is():
    roles = {"product": "mlp", "norm": "layernorm", "softmax": "attention"}
    assert _kind("product", "norm", "add", roles=roles).kind == "mlp"
    assert _kind("norm", "add", roles=roles).kind == "layernorm"
    assert _kind("node_MatMul_1", roles=roles).kind == "other"  # the roles are complete: no guessing by names
    assert _kind("node_MatMul_1").kind == "linear"
    assert _kind("/blocks/blocks.0/attn/qkv/MatMul").kind == "attention"
    assert _kind("a", name="_gemm_mha_v2_myl0_9").kind == "attention"
    assert _kind(layer_type="shape_call").kind == "shapes"
    assert _kind().kind == "other"
    mixed = _kind("product", "block3/TokenReduce/y", "step_0_tokens", roles=roles)
    assert (mixed.kind, mixed.blocks, mixed.parts) == ("mlp", (0, 3), ("reduce", "schedule"))
    alone = _kind("block3/TokenReduce/y", "step_0_tokens")
    assert (alone.kind, alone.blocks) == ("step", (0, 3))
    assert _kind("step_0_tokens", "step_0_slots").kind == "schedule"


@pytest.mark.parametrize("method", ["none", "tome", "evit", "mstm"])
def test_roles_of_an_exported_graph(method: str, exported: Exported):
    """Two blocks: qkv, two products, projection; two of the MLP; the head. Steps have products, too, and no roles."""
    model = ExpandOps()(onnx.load(exported(method)))[0]
    products = {node.name for node in model.graph.node if node.op_type in {"MatMul", "Gemm"}}
    roles = node_roles(model)
    counted = Counter(role for name, role in roles.items() if name in products)
    extra = {"attention": 2} if method in {"evit", "mstm"} else {}  # the class token's, which scores the tokens
    extra |= {"linear": 2} if method == "tome" else {}  # the mean of the keys over the heads, ToMe's metric
    assert counted == Counter({"attention": 8, "mlp": 4, "head": 1}) + Counter(extra)
    assert Counter(roles.values())["layernorm"] == 5
    assert not any(name.startswith(("block", "step_")) for name in roles)


@pytest.mark.parametrize("method", ["tome", "evit", "mstm"])
def test_what_planners_decide_on_is_no_linear_layer(method: str, exported: Exported):
    """ToMe's mean of the keys over the heads, the others' scores: one product a step, for the planner alone."""
    model, metadata = load_source(exported(method))
    assert metadata is not None
    deciding = {str(node.name) for node in deciding_nodes(ir.serde.deserialize_model(model).graph, metadata.steps)}
    roles = node_roles(ExpandOps()(model)[0], deciding)
    products = {node.name for node in model.graph.node if node.op_type in {"MatMul", "Gemm"}}
    counted = Counter(role for name, role in roles.items() if name in products)
    assert counted == {"attention": 8, "mlp": 4, "head": 1, "metric": 2}


def test_roles_where_weights_lost_their_names(exported: Exported):
    model = onnx.load(exported("none"))
    renamed = {tensor.name: f"w{number}" for number, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = renamed[tensor.name]
    for node in model.graph.node:
        names = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(names)
    products = {node.name for node in model.graph.node if node.op_type in {"MatMul", "Gemm"}}
    counted = Counter(role for name, role in node_roles(model).items() if name in products)
    assert counted == {"attention": 8, "mlp": 4, "linear": 1}


def test_a_listing_belongs_to_one_engine(tmp_path: Path):
    engine = tmp_path / "tiny.plan"
    assert read_layers_file(engine, engine_sha256="a") is None
    listing = Listing(source="build log", layers=read_layers(LOG))
    content = LayerFile(engine_sha256="a", listings=(listing,), io=read_io(LOG), roles={"x": "mlp"})
    write_layers(engine, content)
    assert read_layers_file(engine, engine_sha256="a") == content
    with pytest.raises(ArtifactError, match=r"layers\.json: lists the layers of another engine than tiny\.plan"):
        read_layers_file(engine, engine_sha256="b")
    layers_path(engine).write_text("{}")
    with pytest.raises(ArtifactError, match="no layer listing that this version can read.*Delete it"):
        read_layers_file(engine, engine_sha256="a")
    write_layers(engine, None)
    assert list(tmp_path.iterdir()) == []
