import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from tests.quantize.pictures import quantized, write_pictures
from tests.tensorrt.conftest import Exported
from tmdeploy.backends import open_runner
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.images import random_images
from tmdeploy.errors import ArtifactError, DataError, UsageError
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.build.source import load_source

METHODS = ("none", "tome", "evit", "mstm", "topk")
PAIR = {"QuantizeLinear", "DequantizeLinear"}
IMAGES = random_images(4, Preprocessing(image_size=(64, 64)), in_graph=False, seed=8)


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def _initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


@pytest.mark.parametrize(("method", "scheme"), [*((method, "int8") for method in METHODS), ("evit", "fp8")])
def test_pairs_stand_before_the_chosen_nodes_only(method: str, scheme: str, exported: Exported, tmp_path: Path):
    path, report = quantized(exported(method), tmp_path, scheme=scheme)
    model, metadata = read_onnx(path)
    assert metadata is not None
    onnx.checker.check_model(model, full_check=True)
    producers = _producers(model)
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            made = producers.get(name)
            if made is not None and made.op_type == "DequantizeLinear":
                readers.setdefault(node.name, set()).add(made.name)
            if made is not None and made.op_type == "QuantizeLinear":
                assert node.op_type == "DequantizeLinear"
    assert set(readers) == set(report.quantized)
    assert all(len(pairs) == 2 for pairs in readers.values())  # weight and activation
    used = [pair for pairs in readers.values() for pair in pairs]
    assert len(used) == len(set(used))  # TensorRT wants a pair of its own for every node
    original = read_onnx(exported(method))[0]
    assert [(f.domain, f.name) for f in model.functions] == [(f.domain, f.name) for f in original.functions]
    assert [value.name for value in model.graph.input] == [value.name for value in original.graph.input]
    assert [node.name for node in model.graph.node if node.domain] == [n.name for n in original.graph.node if n.domain]
    record = metadata.quantization
    assert record is not None
    assert (metadata.precision, record.scheme, record.images) == (scheme, scheme, 6)
    assert (record.source_name, record.source_sha256) == (exported(method).name, sha256(exported(method)))
    assert record == report.record
    assert {step.map for step in metadata.steps} <= set(producers)


def test_int8_is_symmetric_per_channel_and_without_int32(exported: Exported, tmp_path: Path):
    path, report = quantized(exported("tome"), tmp_path)
    model, original = onnx.load(path), onnx.load(exported("tome"))
    stored, weights = _initializers(model), _initializers(original)
    for node in model.graph.node:
        if node.op_type not in PAIR:
            continue
        zero = stored[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
        if node.input[0] in stored:
            exact = numpy_helper.to_array(weights[node.input[0].removesuffix("_quantized")])
            (axis,) = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
            shape = [-1 if side == axis % exact.ndim else 1 for side in range(exact.ndim)]
            scale = numpy_helper.to_array(stored[node.input[1]]).reshape(shape)
            kernel = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
            assert np.abs(kernel).max() == 127
            assert np.abs(kernel * scale - exact).max() <= scale.max() * 0.501
    assert report.bytes_after < 0.6 * report.bytes_before
    assert not any(tensor.data_type == TensorProto.INT32 for tensor in model.graph.initializer if "bias" in tensor.name)


def test_fp8_reaches_its_largest_number(exported: Exported, tmp_path: Path):
    path, _ = quantized(exported("tome"), tmp_path, scheme="fp8")
    model, original = onnx.load(path), onnx.load(exported("tome"))
    stored, weights = _initializers(model), _initializers(original)
    checked = 0
    for node in model.graph.node:
        if node.op_type in PAIR:
            assert stored[node.input[2]].data_type == TensorProto.FLOAT8E4M3FN
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            assert stored[node.input[0]].data_type == TensorProto.FLOAT8E4M3FN
            kernel = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
            assert np.abs(kernel).max() == 448
            exact = numpy_helper.to_array(weights[node.input[0].removesuffix("_quantized")])
            (axis,) = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
            shape = [-1 if side == axis % exact.ndim else 1 for side in range(exact.ndim)]
            scale = numpy_helper.to_array(stored[node.input[1]]).reshape(shape)
            # three bits of mantissa: half a step is a 16th, and below the smallest normal number 2**-10 of the scale
            assert (np.abs(kernel * scale - exact) <= np.maximum(np.abs(exact) / 15, scale * 2**-10 * 1.01)).all()
            checked += 1
    assert checked == 10


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_the_runner_and_a_schedule(scheme: str, exported: Exported, tmp_path: Path):
    path, _ = quantized(exported("tome"), tmp_path, scheme=scheme)
    runner, original = open_runner(path), open_runner(exported("tome"))
    assert runner.facts.precision == scheme
    for schedule in (None, [0, 0], [3, 16]):
        got, expected = runner.infer(IMAGES, schedule), original.infer(IMAGES, schedule)
        assert 0 < np.abs(got - expected).max() < 0.25 * np.abs(expected).max()


def test_stock_onnxruntime_runs_int8(exported: Exported, tmp_path: Path):
    path, _ = quantized(exported("tome", lowering="portable"), tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": IMAGES})
    expected = open_runner(path).infer(IMAGES)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_calibration_methods(method: str, exported: Exported, tmp_path: Path):
    _, report = quantized(exported("none"), tmp_path, calibration=method, keep_float=("attention", "node_MatMul_*"))
    assert report.record.calibration == method
    assert (report.record.percentile is None) == (method != "percentile")
    assert 0 < report.comparison.model.logits_error_max < 5


def test_minmax_covers_what_it_saw_and_percentile_does_not(exported: Exported, tmp_path: Path):
    """The scale of the images' pair, which is known from the pictures."""
    scales = {}
    for method in ("minmax", "percentile"):
        path, report = quantized(exported("none"), tmp_path, calibration=method, percentile=90.0)
        model = onnx.load(path)
        (node,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "images"]
        scales[method] = float(numpy_helper.to_array(_initializers(model)[node.input[1]]))
        assert report.record.images_sha256 == _digest(path, tmp_path / "pictures")
    largest = max(float(np.abs(images).max()) for images in _calibration(path, tmp_path / "pictures"))
    assert scales["minmax"] == pytest.approx(largest / 127, rel=1e-6)
    assert scales["percentile"] < scales["minmax"]


def _calibration(path: Path, pictures: Path) -> list[np.ndarray]:
    from tmdeploy.data.images import ImageReader
    from tmdeploy.quantize.split import split_images

    metadata = read_onnx(path)[1]
    assert metadata is not None
    chosen = split_images([pictures], [], images=6, eval_images=512, seed=0).calibration
    return [batch.images for batch in ImageReader(chosen, metadata.card.preprocessing).batches(3)]


def _digest(path: Path, pictures: Path) -> str:
    import hashlib

    return hashlib.sha256(b"".join(batch.tobytes() for batch in _calibration(path, pictures))).hexdigest()


def test_pixels_in_and_a_static_batch(exported: Exported, tmp_path: Path):
    path, report = quantized(exported("tome", with_preprocessing=True, dynamic_batch=False), tmp_path)
    assert open_runner(path).pixels_in
    assert len(report.quantized) == 10
    assert (report.comparison.batch_sizes, report.record.images) == ((1,), 6)


def test_images_are_split_and_seeded(exported: Exported, tmp_path: Path):
    path, report = quantized(exported("topk"), tmp_path, images=100, eval_images=3)
    assert (report.record.images, report.comparison.images) == (6, 3)
    again = quantized(exported("topk"), tmp_path, images=100, eval_images=3)[1]
    assert again.record == report.record
    other = quantized(exported("topk"), tmp_path, images=100, eval_images=3, seed=1)[1]
    assert other.record.images_sha256 != report.record.images_sha256
    few = write_pictures(tmp_path / "one", 1)
    with pytest.raises(DataError, match="a single image cannot be both calibrated and compared on"):
        quantized(exported("topk"), tmp_path, data=[few])
    _, report = quantized(exported("topk"), tmp_path, data=[few], eval_data=[tmp_path / "pictures"])
    assert (report.record.images, report.comparison.images) == (1, 12)
    with pytest.raises(DataError, match="--eval-data has no images but those calibrated on"):
        quantized(exported("topk"), tmp_path, data=[few], eval_data=[few])
    assert path.is_file()


def test_a_drop_above_its_limit_writes_nothing(exported: Exported, tmp_path: Path):
    path, report = quantized(exported("none"), tmp_path, percentile=50.0, max_drop=0.0, eval_images=6)
    assert (report.drop.measure, report.drop.limit) == ("agreement", 0.0)
    assert report.written == report.drop.passed == path.exists()
    assert not report.written
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pictures"]


def test_an_interrupted_run_leaves_the_old_file(exported: Exported, tmp_path: Path):
    path, _ = quantized(exported("none"), tmp_path)
    before = path.read_bytes()

    def stop(what: str) -> None:
        if what.startswith("comparing"):
            raise KeyboardInterrupt

    from tmdeploy.quantize import QuantizeRequest, quantize

    request = QuantizeRequest(exported("none"), path, "fp8", [tmp_path / "pictures"])
    with pytest.raises(KeyboardInterrupt):
        quantize(request, stop)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, "pictures"]


def test_what_is_refused(exported: Exported, tmp_path: Path):
    path, _ = quantized(exported("none"), tmp_path)
    with pytest.raises(ArtifactError, match="is quantised to int8 already"):
        quantized(path, tmp_path, output=tmp_path / "twice.onnx")
    half = onnx.load(exported("none"))
    half.metadata_props[0].value = half.metadata_props[0].value.replace('"precision":"fp32"', '"precision":"fp16"')
    onnx.save(half, tmp_path / "half.onnx")
    with pytest.raises(ArtifactError, match=r"is fp16, and only an fp32 file is quantised.*build --precision fp16"):
        quantized(tmp_path / "half.onnx", tmp_path)
    foreign = onnx.load(exported("none"))
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="carries no tmdeploy metadata, so nothing says which nodes are planners"):
        quantized(tmp_path / "foreign.onnx", tmp_path)
    old = onnx.load(exported("none"))
    old.opset_import[0].version = 18
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(ArtifactError, match=r"has opset 18, and fp8 needs 19 or later\. Export it with --opset 19"):
        quantized(tmp_path / "old.onnx", tmp_path, scheme="fp8")
    with pytest.raises(UsageError, match="is an input, and would be overwritten"):
        quantized(exported("none"), tmp_path, output=exported("none"))
    for changes, message in (
        ({"percentile": 3.0}, "--percentile 3: from 50 to 100"),
        ({"max_drop": 2.0}, "--max-drop 2: a share"),
        ({"data": []}, "nothing to calibrate on"),
        ({"model": tmp_path / "x.pt"}, r"only an \.onnx is quantised\. Export a checkpoint first"),
        ({"output": tmp_path / "x.plan"}, r"a quantised model ends in \.onnx"),
    ):
        with pytest.raises(UsageError, match=message):
            quantized(**{"model": exported("none"), "folder": tmp_path, **changes})


def _scattered(model: onnx.ModelProto) -> None:
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "before"
    zero, one = np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(zero, "place"), numpy_helper.from_array(one, "more")])
    given = ["before", "place", "more"]
    node = onnx.helper.make_node("ScatterElements", given, ["logits"], name="sum", axis=1, reduction="add")
    model.graph.node.append(node)


def test_what_tensorrt_refuses_is_quantised(exported: Exported, tmp_path: Path):
    model = onnx.load(exported("none"))
    _scattered(model)
    onnx.save(model, tmp_path / "scatter.onnx")
    path, report = quantized(tmp_path / "scatter.onnx", tmp_path)
    assert report.written
    assert "ScatterElements" in {node.op_type for node in onnx.load(path).graph.node}
    with pytest.raises(ArtifactError, match="is a ScatterElements with reduction 'add', which TensorRT refuses"):
        load_source(path)  # tmdeploy build says so


def test_a_file_that_lost_its_functions(exported: Exported, tmp_path: Path):
    model = onnx.load(exported("tome"))
    del model.functions[:]
    onnx.save(model, tmp_path / "lost.onnx")
    with pytest.raises(
        ArtifactError, match=r"no function body\. Export it again: the file lost its functions"
    ) as raised:
        quantized(tmp_path / "lost.onnx", tmp_path)
    assert "TensorRT" not in str(raised.value)


def test_images_that_cannot_be_read(exported: Exported, tmp_path: Path):
    data = write_pictures(tmp_path / "pictures", 12)
    for number in range(12):
        (data / f"broken{number}.png").write_bytes(b"no image")
    _, report = quantized(exported("none"), tmp_path, images=12)
    assert report.record.images + len(report.calibration_skipped) == 12
    assert report.comparison.images + len(report.comparison.skipped_images) == 12
    assert all(reason == "not an image, or damaged" for _, reason in report.calibration_skipped)
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(4):
        (bad / f"broken{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\d\.png: cannot be read as an image"):
        quantized(exported("none"), tmp_path, data=[bad])


def test_the_document(exported: Exported, tmp_path: Path):
    _, report = quantized(exported("tome"), tmp_path, keep_float=("attention", "metric-source"))
    document = json.loads(report.model_dump_json(by_alias=True))
    assert document["schema"] == "tmdeploy.quantize/1"
    assert document["comparison"]["schema"] == "tmdeploy.validate/1"
    assert [step["block"] for step in document["steps"]] == [0, 1]
    assert document["steps"][0]["agreeing"] >= document["steps"][1]["agreeing"] == document["comparison"]["agreeing"]
    assert {node["entry"] for node in document["kept"]} == {"attention", "metric-source"}
    # reduction steps are not quantised: on the reference's inputs they are the reference's
    assert all(check["passed"] for check in document["comparison"]["checks"] if check["level"] == "numeric")
