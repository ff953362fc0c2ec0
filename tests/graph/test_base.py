import logging

import numpy as np
import onnx
import pytest

from tests.graph.models import product
from tmdeploy.graph import Change, Pass, run_passes
from tmdeploy.graph.fix_shapes import FixShapes
from tmdeploy.graph.name_nodes import NameNodes


def test_a_change_is_one_line():
    assert str(Change("p", "doubles became floats", {"tensors": 2, "casts": 0})) == (
        "p: doubles became floats (tensors: 2)"
    )
    assert str(Change("p", "doubles became floats", {"tensors": 0})) == "p: nothing to do"


def test_passes_run_one_after_another_and_are_logged(caplog: pytest.LogCaptureFixture):
    class Double:
        name = "double"

        def __call__(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Change]:
            other = onnx.ModelProto()
            other.CopyFrom(model)
            other.graph.node.append(model.graph.node[-1])
            return other, Change(self.name, "nodes were repeated", {"nodes": 1})

    assert isinstance(Double(), Pass)
    given = product(np.eye(2, dtype=np.float32))
    with caplog.at_level(logging.DEBUG, "tmdeploy.graph"):
        model, changes = run_passes(given, [Double(), Double(), NameNodes(), FixShapes({})])
    assert (len(given.graph.node), len(model.graph.node)) == (1, 3)
    assert [change.counts for change in changes] == [{"nodes": 1}, {"nodes": 1}, {"nodes": 2}, {"dimensions": 0}]
    assert caplog.messages == [
        "double: nodes were repeated (nodes: 1)",
        "double: nodes were repeated (nodes: 1)",
        "name-nodes: nodes got names of their own (nodes: 2)",
        "fix-shapes: nothing to do",
    ]
