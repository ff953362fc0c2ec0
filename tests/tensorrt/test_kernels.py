from tmdeploy.tensorrt.build.log import read_layers
from tmdeploy.tensorrt.record.kernels import StepKernels, count_kernels

# Shortened lines of a TensorRT-RTX 1.7 build log.
LAYERS = (
    ("shapes_0", "shape_call", ()),
    ("signal_1", "signal", ()),
    ("wait_2", "wait", ()),
    ("conv", "correlation", ("conv2d",)),
    ("__myl_Slic_7", "kgen", ("block0/TokenMatch/half_a", "block0/signal")),
    ("dot_8", "gemm", ("block0/TokenMatch/similarity_dot",)),
    ("topk_9", "kgen", ("block0/TokenMatch/a", "block0/TokenReduce/b")),
    ("_gemm_mha_v2_myl0_9", "kgen", ("node_softmax", "node_matmul_1")),
    ("sum_10", "kgen", ("block3/TokenReduce_1/wsum", "block3/TokenReduce/y")),
)
PORTS = "Inputs: [ { Name: x, Dimensions: [-1,3] }], Constants: [], Outputs: []"
LINES = [
    f"Name: {name}, LayerType: {kind}, {PORTS}, Metadata: {''.join(f'[ONNX Layer: {node}]' for node in nodes)}"
    for name, kind, nodes in LAYERS
]
LOG = ["some other message", "\n".join(["Engine Layer Information:", *LINES])]


def test_kernels_of_a_log():
    kernels = read_layers(LOG)
    assert [(kernel.name, kernel.type, kernel.nodes) for kernel in kernels] == list(LAYERS)
    assert kernels[4].step_nodes == ("block0/TokenMatch/half_a",)
    counted = count_kernels(kernels)
    assert counted.total == 6  # neither arithmetic on shapes nor streams that wait for each other
    assert counted.types == {"kgen": 4, "correlation": 1, "gemm": 1}
    assert counted.fused_attention == 1
    assert counted.steps == (StepKernels(block=0, only=2, shared=1), StepKernels(block=3, only=1, shared=0))


def test_products_of_eight_bits():
    """Lines of a build of an int8 file, shortened."""
    port = "{{ Name: x, Dimensions: [8,96], Datatype: {} , Format: (Linear) }}"
    kinds = (
        ("product", "gemm", ("Int8",)),
        ("float_product", "gemm", ("Float",)),
        ("and_residual", "runtime_fusion", ("Int8", "Half")),
        ("stem", "correlation", ("FP8",)),
        ("_gemm_mha_v2", "kgen", ("Int8", "Half")),
        ("dequantize", "kgen", ("Int8",)),
    )
    lines = []
    for name, kind, types in kinds:
        inputs = ", ".join(port.format(one) for one in types)
        rest = "Constants: [ { Name: w, Datatype: Int8 }], Outputs: [ { Name: y, Datatype: Int8 }], Metadata: "
        lines.append(f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], {rest}[ONNX Layer: {name}]")
    kernels = read_layers(lines)
    assert [len(kernel.inputs) for kernel in kernels] == [len(types) for _, _, types in kinds]
    assert [kernel.name for kernel in kernels if kernel.quantized] == [
        "product",
        "and_residual",
        "stem",
        "_gemm_mha_v2",
    ]
    assert count_kernels(kernels).quantized == 4


def test_a_log_without_kernels():
    assert read_layers(["nothing", "Name: not a layer"]) == ()
    assert count_kernels(()).total == 0
