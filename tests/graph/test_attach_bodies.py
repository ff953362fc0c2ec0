import onnx_ir as ir
import pytest
from onnx import helper

from tests.graph.models import made, value
from tmdeploy.errors import ExportError
from tmdeploy.graph.attach_bodies import AttachBodies


def _two(first: str, second: str) -> ir.Model:
    nodes = [
        helper.make_node("TokenReduce", ["x", "map", "index"], [f"y{n}", f"w{n}"], domain="tmdeploy", mode=mode)
        for n, mode in enumerate((first, second))
    ]
    ports = [value("x", 1, 4, 2), value("map", 1, 4, kind=6), value("index", 1, 2, kind=6)]
    return ir.serde.deserialize_model(made(nodes, ports, [value("y1", 1, 2, 2)]))


def test_every_op_gets_one_body():
    model, change = AttachBodies(20)(_two("sum", "sum"))
    assert str(change) == "attach-bodies: ops got function bodies (ops: 1)"
    assert [name for _, name, _ in model.functions] == ["TokenReduce"]
    assert model.graph.opset_imports["tmdeploy"] == 1


def test_one_body_cannot_serve_two_settings():
    with pytest.raises(ExportError, match="nodes of TokenReduce differ in their attributes"):
        AttachBodies(20)(_two("sum", "mean"))
