"""What every function body promises besides its result."""

import onnx
import pytest
import torch
from torch.library import opcheck

from tmdeploy.ops import DOMAIN
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET, function_body
from tmdeploy.ops.reference import token_match, token_reduce, token_select
from tmdeploy.ops.schemas import register_schemas
from tmdeploy.ops.spec import ReduceAttributes

MODES = ReduceAttributes.choices("mode")

CASES = [
    *[("TokenMatch", {"num_prefix": p, "order": o}) for p in (0, 1, 2) for o in ("tome", "tome_unsorted")],
    *[
        ("TokenSelect", {"leftover": left, "order": o})
        for left in ("drop", "fuse", "nearest")
        for o in ("score", "index")
    ],
    *[("TokenReduce", {"mode": m}) for m in MODES],
]


@pytest.mark.parametrize(("op", "attributes"), CASES)
@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
@pytest.mark.parametrize("counting", [False, True])
def test_body_passes_the_checker_without_a_scattering_reduction(op: str, attributes: dict, opset: int, counting: bool):
    function = function_body(op, attributes, opset, counting=counting)
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 10, {"": opset, DOMAIN: 1}
    onnx.checker.check_function(function, context)
    read = {name for node in function.node for name in node.input}
    for node in function.node:
        assert node.op_type != "Constant" or node.output[0] in read  # ONNX Runtime warns of them once they are inlined
        assert node.domain == ""
        assert onnx.defs.has(node.op_type, max_inclusive_version=opset)
        if node.op_type.startswith("Scatter"):  # TensorRT rejects or ignores a reduction
            assert "reduction" not in {attribute.name for attribute in node.attribute}


@pytest.mark.parametrize(("op", "attributes"), [case for case in CASES if case[0] != "TokenReduce"])
def test_no_transposition_stands_beside_a_product_in_float64(op: str, attributes: dict):
    """ONNX Runtime 1.20 to 1.25 fuse the two, through a Cast too, and have no kernel for that."""
    function = function_body(op, attributes, 20)
    made_by = {output: node for node in function.node for output in node.output}

    def makers(name: str) -> list[str]:
        """Of a value, and behind a Cast of what was cast."""
        if name not in made_by:
            return []
        node = made_by[name]
        return [node.op_type, *(makers(node.input[0]) if node.op_type == "Cast" else [])]

    sides = [makers(name) for node in function.node if node.op_type == "MatMul" for name in node.input]
    assert bool(sides) == (op == "TokenMatch" or attributes["leftover"] == "nearest")
    assert not any("Transpose" in side for side in sides)


@pytest.mark.parametrize("opset", [MIN_OPSET - 1, MAX_OPSET + 1])
def test_unsupported_opset_is_refused(opset: int):
    with pytest.raises(ValueError, match="opset 18 to 23"):
        function_body("TokenReduce", {}, opset)


@pytest.mark.parametrize("counting", [False, True])
def test_schemas_carry_every_attribute_of_the_bodies(counting: bool):
    register_schemas()
    for op, attributes in CASES:
        schema = onnx.defs.get_schema(op, 1, DOMAIN)
        function = function_body(op, attributes, 20, counting=counting)
        assert {attribute.name for attribute in function.attribute_proto} == set(schema.attributes)
        assert [output.name for output in schema.outputs][1:] == list(function.output)[1:]


def test_ops_follow_the_rules_of_torch_library():
    """Fake kernels agree with the real ones, schemas are truthful."""
    checks = ("test_schema", "test_faketensor")
    plan, index, _ = token_match(torch.randn(2, 17, 4), torch.arange(12))
    opcheck(token_match, (torch.randn(2, 17, 4), torch.arange(12)), test_utils=checks)
    opcheck(token_select, (torch.rand(2, 17), torch.arange(12)), test_utils=checks)
    opcheck(token_reduce, (torch.randn(2, 17, 4), plan, index), test_utils=checks)
