import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from tests.graph.models import made, value
from tests.graph.running import outputs
from tmdeploy.graph.runtime_schedule import RuntimeSchedule


def _probed(*probes: str) -> ir.Model:
    """Puts out the length of every probe, and the first probe itself."""
    nodes = [helper.make_node("Shape", [name], [f"count_of_{name}"]) for name in probes]
    nodes.append(helper.make_node("Identity", [probes[0]], ["itself"]))
    kind = TensorProto.INT64
    outs = [value(f"count_of_{name}", 1, kind=kind) for name in probes] + [value("itself", "n", kind=kind)]
    inner = [helper.make_node("Identity", [f"count_of_{name}"], [f"out_{name}"]) for name in probes]
    outs = [value(f"out_{name}", 1, kind=kind) for name in probes] + outs[-1:]
    return ir.serde.deserialize_model(
        made([*nodes, *inner], [value(name, f"n_{name}", kind=kind) for name in probes], outs)
    )


@pytest.mark.parametrize(
    ("r", "counts"), [(None, [15, 12]), ([0, 0], [17, 17]), ([-3, 99], [17, 9]), ([99, 99], [9, 5])]
)
def test_r_removes_at_most_half_of_the_patches(r: list[int] | None, counts: list[int]):
    schedule = RuntimeSchedule(kind="r", amounts=(2, 3), tokens=17, prefix=1, fuse=False)
    model, change = schedule(_probed("slots_0", "slots_1"))
    assert str(change) == "runtime-schedule: token counts come from the input 'r' (steps: 2, probes: 2, nodes: 14)"
    feeds = {} if r is None else {"r": np.array(r)}
    *got, itself = outputs(ir.serde.serialize_model(model), **feeds)
    assert [int(count[0]) for count in got] == counts
    np.testing.assert_array_equal(itself, np.arange(counts[0]))


@pytest.mark.parametrize(
    ("keep", "counts"), [(None, [12, 6]), ([99, 16], [17, 17]), ([0, 0], [3, 3]), ([16, 1], [17, 3])]
)
def test_keep_leaves_one_fused_token(keep: list[int] | None, counts: list[int]):
    schedule = RuntimeSchedule(kind="keep", amounts=(10, 4), tokens=17, prefix=1, fuse=True)
    model, _ = schedule(_probed("slots_0", "slots_1", "kept_0", "kept_1"))
    assert [value.name for value in model.graph.inputs] == ["keep"]
    feeds = {} if keep is None else {"keep": np.array(keep)}
    total, second, stay, stays, _ = outputs(ir.serde.serialize_model(model), **feeds)
    assert [int(total[0]), int(second[0])] == counts
    assert int(stay[0]) in {counts[0], counts[0] - 1}
    assert int(stays[0]) in {counts[1], counts[1] - 1}
