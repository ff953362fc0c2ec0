from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tmdeploy
from tests.export.exporting import open_session, save_tiny
from tests.vits import tiny_images, tiny_vit
from tmdeploy.card.metadata import METADATA_KEY, ArtifactMetadata, parse
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import ArtifactError
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.graph.twins import MakeTwin

# method, layers, amounts: each with what makes its graph special
CASES = {
    "tome": {"r": 8},  # sizes, log-size bias
    "evit": {"layers": [1, 2]},  # a fused token, no sizes
    "topk": {"layers": [1, 2]},  # drops
    "mstm": {"layers": [1, 2]},  # merges leftovers into kept tokens
}


Made = tuple[Path, ArtifactMetadata]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """`made("tome", lowering="portable")`: a file of a tiny model, and what it says; made once, for reading only."""
    known: dict[tuple[object, ...], Made] = {}

    def make(name: str, **request: object) -> Made:
        key = (name, *sorted(request.items()))
        if key not in known:
            folder = tmp_path_factory.mktemp(name)
            checkpoint = save_tiny(tmdeploy.patch(tiny_vit(), name, **CASES.get(name, {})), folder)
            output = folder / f"{name}.onnx"
            written = export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False, **request))
            known[key] = output, written.metadata
        return known[key]

    return make


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _ops(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("lowering", ["custom", "portable"])
@pytest.mark.parametrize("name", CASES)
def test_unmerged_twin_is_the_plain_model(name: str, lowering: str, made: Callable[..., Made]):
    path, metadata = made(name, lowering=lowering)
    plain, _ = made("none")
    original = onnx.load(path)
    twin, change = MakeTwin("unmerged", metadata)(original)
    assert str(change) == f"make-twin: steps removed: the unmerged twin (steps: {len(metadata.steps)})"
    onnx.checker.check_model(twin)
    assert not list(twin.functions)
    assert {"TokenMatch", "TokenSelect", "TokenReduce", "Log", "TopK", "Range"}.isdisjoint(_ops(twin))
    assert [entry.name for entry in twin.graph.input] == ["images"]
    assert original.SerializeToString() == onnx.load(path).SerializeToString(), "the given model is left alone"
    for batch in (1, 3):
        images = tiny_images(batch).numpy()
        (got,) = _session(twin).run(None, {"images": images})
        (want,) = open_session(plain).run(None, {"images": images})
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
        (merged,) = open_session(path).run(None, {"images": images})
        assert np.abs(got - merged).max() > 1e-2, "the reduction did something, and it is gone"


def test_unmerged_twin_has_no_more_nodes_than_the_plain_export(made: Callable[..., Made]):
    path, metadata = made("tome")
    plain, _ = made("none")
    twin = MakeTwin("unmerged", metadata)(onnx.load(path))[0]
    weighty = {"MatMul", "Gemm", "Softmax", "LayerNormalization", "Add", "Mul", "Gelu", "Erf", "Conv"}
    count = {
        which: sorted(node.op_type for node in model.graph.node if node.op_type in weighty)
        for which, model in (("twin", twin), ("plain", onnx.load(plain)))
    }
    assert count["twin"] == count["plain"]


@pytest.mark.parametrize("lowering", ["custom", "portable"])
def test_free_merge_twin_slices_where_the_model_merges(lowering: str, made: Callable[..., Made]):
    path, metadata = made("tome", lowering=lowering)
    twin = MakeTwin("free-merge", metadata)(onnx.load(path))[0]
    onnx.checker.check_model(twin)
    assert {"TokenMatch", "TokenReduce", "Log", "TopK"}.isdisjoint(_ops(twin))
    free = [node for node in twin.graph.node if node.name.startswith("free_")]
    assert [node.op_type for node in free] == ["Slice"] * len(metadata.steps)
    for node in free:
        twin.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    logits, *tokens = _session(twin).run(None, {"images": tiny_images(2).numpy()})
    assert logits.shape == (2, 10)
    assert [array.shape[1] for array in tokens] == [step.tokens_out for step in metadata.steps] == [57, 49, 41, 33]


def test_twins_say_that_they_reduce_nothing(made: Callable[..., Made]):
    path, metadata = made("tome")
    for kind in ("unmerged", "free-merge"):
        twin = MakeTwin(kind, metadata)(onnx.load(path))[0]
        text = {entry.key: entry.value for entry in twin.metadata_props}[METADATA_KEY]
        found = parse(text, path="twin")
        assert (found.card.recipe, found.steps, found.schedule_input) == (Recipe(method="none"), (), None)
        assert found.card.architecture == metadata.card.architecture


def test_a_file_that_does_not_hold_what_its_metadata_says(made: Callable[..., Made]):
    path, metadata = made("tome")
    step = metadata.steps[0].model_copy(update={"x_out": "nowhere"})
    changed = metadata.model_copy(update={"steps": (step, *metadata.steps[1:])})
    with pytest.raises(ArtifactError, match="no tensor 'nowhere'"):
        MakeTwin("unmerged", changed)(onnx.load(path))


def test_fp16(made: Callable[..., Made]):
    path, metadata = made("tome", precision="fp16")
    plain, _ = made("none", precision="fp16")
    images = tiny_images(2).numpy()
    (want,) = open_session(plain).run(None, {"images": images})
    (got,) = _session(MakeTwin("unmerged", metadata)(onnx.load(path))[0]).run(None, {"images": images})
    np.testing.assert_allclose(got, want, atol=2e-2)


def test_fixed_schedule(made: Callable[..., Made]):
    path, metadata = made("tome", runtime_schedule=False)
    free = MakeTwin("free-merge", metadata)(onnx.load(path))[0]
    assert _session(free).run(None, {"images": tiny_images(2).numpy()})[0].shape == (2, 10)
    with pytest.raises(ArtifactError, match="token counts fixed"):
        MakeTwin("unmerged", metadata)(onnx.load(path))[0]
