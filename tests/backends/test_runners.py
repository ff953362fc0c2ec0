"""Both backends behind the one protocol."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tmdeploy
from tests.export.exporting import save_tiny
from tests.vits import tiny_images, tiny_vit
from tmdeploy.backends import Runner, backend_for, open_runner
from tmdeploy.errors import ArtifactError, DataError, UsageError
from tmdeploy.export import ExportRequest, export_checkpoint


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, Runner]:
    """A checkpoint with ToMe and the file exported from it."""
    folder = tmp_path_factory.mktemp("pair")
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(), "tome", r=8), folder)
    output = folder / "tiny.onnx"
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False))
    return open_runner(checkpoint, threads=1), open_runner(output, threads=1)


IMAGES = tiny_images(3).numpy()


def test_backends_are_found_by_suffix():
    assert backend_for(Path("a.ONNX")).name == "onnxruntime"
    assert backend_for(Path("a.safetensors")).name == "pytorch"
    with pytest.raises(UsageError, match=r"no backend reads '\.h5' files"):
        backend_for(Path("a.h5"))


@pytest.mark.parametrize("schedule", [None, (0, 0, 0, 0), (8, 0, 3, 1), (999, 999, 999, 999)])
@pytest.mark.parametrize("batch", [1, 3])
def test_both_infer_and_trace_the_same(
    pair: tuple[Runner, Runner], batch: int, schedule: tuple[int, ...] | None
) -> None:
    torch_runner, onnx_runner = pair
    images = IMAGES[:batch]
    ours, theirs = (runner.trace(images, schedule, tensors=True) for runner in pair)
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-4)
    # more outputs may change what ONNX Runtime fuses
    np.testing.assert_allclose(onnx_runner.infer(images, schedule), theirs.logits, atol=1e-5)
    np.testing.assert_array_equal(torch_runner.infer(images, schedule), ours.logits)
    assert len(ours.steps) == len(theirs.steps) == 4
    for one, other in zip(ours.steps, theirs.steps, strict=True):
        assert (one.block, one.op) == (other.block, other.op)
        np.testing.assert_array_equal(one.map, other.map)
        np.testing.assert_array_equal(one.index, other.index)
        for name in ("signal", "x_in", "x_out", "size_out"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)
        assert (one.size_in is None) == (other.size_in is None)


def test_tensors_only_when_asked_for(pair: tuple[Runner, Runner]):
    for runner in pair:
        assert all(step.x_in is None and step.x_out is None for step in runner.trace(IMAGES[:1]).steps)


def test_runners_satisfy_the_protocol_and_describe_themselves(pair: tuple[Runner, Runner]):
    for runner, name in zip(pair, ("pytorch", "onnxruntime"), strict=True):
        assert isinstance(runner, Runner)
        assert runner.facts.backend == name
        assert runner.facts.method == "tome"
        assert runner.load_seconds > 0
        assert runner.class_names == tuple("abcdefghij")


@pytest.mark.parametrize("schedule", [(1,), (1, 2, 3, 4, 5), (-1, 0, 0, 0)])
def test_schedules_that_cannot_be_meant(pair: tuple[Runner, Runner], schedule: tuple[int, ...]):
    for runner in pair:
        with pytest.raises(UsageError):
            runner.infer(IMAGES[:1], schedule)


def test_images_that_do_not_fit(pair: tuple[Runner, Runner]):
    for wrong in (IMAGES[:, :, :32], IMAGES[0], (IMAGES * 255).astype(np.uint8)):
        with pytest.raises(DataError, match=r"takes tensor\(float\) \['batch', 3, 64, 64\], but was given"):
            pair[1].infer(wrong)


def test_an_empty_batch_is_refused_by_every_backend(pair: tuple[Runner, Runner]):
    openvino = open_runner(pair[1].path, backend="openvino", threads=1)
    for runner in (*pair, openvino):
        for call in (runner.infer, runner.trace):
            with pytest.raises(DataError, match="was given a batch without images. Give at least one"):
                call(IMAGES[:0])


def test_amounts_beyond_what_is_possible_are_clipped_alike_everywhere(pair: tuple[Runner, Runner]):
    openvino = open_runner(pair[1].path, backend="openvino", threads=1)
    for schedule in ((5000,) * 4, (2**31 - 1,) * 4):
        plans = [[step.map.shape for step in runner.trace(IMAGES, schedule).steps] for runner in (*pair, openvino)]
        assert plans[0] == plans[1] == plans[2]
    for runner in (*pair, openvino):
        with pytest.raises(UsageError, match="r is -3"):
            runner.infer(IMAGES, (-3,) * 4)


def test_pixels_in_the_graph_give_the_same_logits(tmp_path: Path):
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(), "tome", r=8), tmp_path)
    output = tmp_path / "pixels.onnx"
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False, with_preprocessing=True))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    in_graph, outside = open_runner(output), open_runner(checkpoint, pixels_in=True)
    assert in_graph.pixels_in
    np.testing.assert_allclose(in_graph.infer(pixels), outside.infer(pixels), atol=1e-4)


def _foreign(path: Path, *shape: object, inputs: int = 1) -> Path:
    values = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, list(shape)) for n in range(inputs)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Flatten", ["x0"], ["y"])], "g", values, [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_a_foreign_file_runs_but_has_no_plans(tmp_path: Path):
    runner = open_runner(_foreign(tmp_path / "f.onnx", "n", 3, 8, 8))
    assert runner.preprocessing.image_size == (8, 8)
    assert runner.infer(np.zeros((2, 3, 8, 8), np.float32)).shape == (2, 192)
    with pytest.raises(ArtifactError, match="no tmdeploy metadata"):
        runner.trace(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(UsageError, match="reduces no tokens"):
        runner.infer(np.zeros((1, 3, 8, 8), np.float32), (1,))


@pytest.mark.parametrize(("shape", "inputs"), [(("n", 10), 1), (("n", 3, 8, 8), 2)])
def test_models_of_no_images_are_refused(shape: tuple, inputs: int, tmp_path: Path):
    with pytest.raises(ArtifactError, match="not one batch of images"):
        open_runner(_foreign(tmp_path / "f.onnx", *shape, inputs=inputs))


def test_a_fixed_schedule_cannot_be_changed(tmp_path: Path):
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(), "tome", r=8), tmp_path)
    output = tmp_path / "fixed.onnx"
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False, runtime_schedule=False))
    with pytest.raises(UsageError, match="fixed schedule.*--runtime-r"):
        open_runner(output).infer(IMAGES[:1], (1, 1, 1, 1))


def test_damaged_metadata_is_named(pair: tuple[Runner, Runner], tmp_path: Path):
    proto = onnx.load(pair[1].path)
    for entry in proto.metadata_props:
        if entry.key == "tmdeploy":
            entry.value = entry.value.replace("block0/", "elsewhere/")
    path = tmp_path / "changed.onnx"
    onnx.save(proto, path)
    with pytest.raises(ArtifactError, match=r"names a tensor 'elsewhere/.*export it again"):
        open_runner(path).trace(IMAGES[:1])
