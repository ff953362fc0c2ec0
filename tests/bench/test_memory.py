from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export.exporting import save_tiny
from tests.vits import tiny_vit
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.bench.memory import Footprint, Job, footprint
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import ArtifactError


def _save_linear(path: Path, megabytes: int) -> Path:
    """[batch, 3, 2, 2] to [batch, columns], with a weight of that size."""
    columns = megabytes * 2**20 // (12 * 4)
    weight = np.ones((12, columns), np.float32)
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 2, 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", columns])
    graph = helper.make_graph(nodes, "linear", [images], [logits], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_counts_the_model_and_not_the_process_that_asks(tmp_path: Path):
    small, large = _save_linear(tmp_path / "small.onnx", 1), _save_linear(tmp_path / "large.onnx", 200)
    ballast = np.ones(600 * 2**20, np.uint8)  # this process holds much more than any of the children
    measured = [footprint(Job(path, batch=1, threads=1)) for path in (small, large)]
    assert ballast.nbytes > 2**29
    assert 0 < measured[0].model_mib < 100
    assert measured[1].model_mib - measured[0].model_mib > 190  # the weights at least
    for found in measured:
        assert found.baseline_mib < 300
        assert found.load_ms > 0


def test_activations_of_the_largest_batch_count(tmp_path: Path):
    path = _save_linear(tmp_path / "m.onnx", 4)
    one, many = (footprint(Job(path, batch=size, threads=1)).model_mib for size in (1, 2000))
    assert many - one > 600  # 2000 rows of 87,381 float32


def test_checkpoints_open_as_asked(tmp_path: Path):
    path = save_tiny(tiny_vit(), tmp_path, with_recipe=False)
    recipe = Recipe(method="tome", layers=(0, 1), amounts=(4, 4))
    found = footprint(Job(path, batch=2, threads=1, checkpoint=CheckpointOptions(recipe=recipe)))
    assert found.peak_mib > found.baseline_mib > 0
    with pytest.raises(ArtifactError, match=r"memory was not measured \(.*heads is 3, not 7"):
        footprint(Job(path, batch=2, threads=1, checkpoint=CheckpointOptions(recipe=recipe, num_heads=7)))


def test_a_failure_says_why(tmp_path: Path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"broken\.onnx: its memory was not measured \(.*no ONNX file"):
        footprint(Job(broken, batch=1))


def test_model_is_the_difference():
    assert Footprint(baseline_mib=60.0, peak_mib=100.0, load_ms=1.0).model_mib == 40.0
