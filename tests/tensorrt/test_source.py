"""ONNX files no engine can be built from: each is refused with one line that says what is wrong and what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tmdeploy.errors import ArtifactError
from tmdeploy.tensorrt.build.source import fixed_images, load_source


@pytest.fixture
def tome(exported: Callable[..., Path]) -> Path:
    return exported("tome")


def _model(*nodes: onnx.NodeProto, shape: tuple[object, ...] = ("n", 3, 8, 8), inputs: int = 1) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, list(shape)) for n in range(inputs)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes) or [helper.make_node("Flatten", ["x0"], ["y"])], "g", given, [out])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("other", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _missing(path: Path, _: Path) -> None:
    path.unlink(missing_ok=True)


def _empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path, tome: Path) -> None:
    path.write_bytes(tome.read_bytes()[:-5000])


def _text(path: Path, _: Path) -> None:
    path.write_text("no model at all")


def _engine(path: Path, _: Path) -> None:
    path.write_bytes(b"ftrt" + bytes(1000))


def _weights_elsewhere(path: Path, _: Path) -> None:
    model = _model()
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "gone.bin"
    model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())


def _scatter_sum(path: Path, _: Path) -> None:
    node = helper.make_node("ScatterElements", ["x0", "x0", "x0"], ["y"], name="merge", reduction="add")
    path.write_bytes(_model(node).SerializeToString())


def _foreign_op(path: Path, _: Path) -> None:
    path.write_bytes(_model(helper.make_node("Magic", ["x0"], ["y"], domain="other", name="m")).SerializeToString())


def _lost_functions(path: Path, tome: Path) -> None:
    model = onnx.load(tome)
    del model.functions[:]
    onnx.save(model, path)


def _damaged_metadata(path: Path, tome: Path) -> None:
    model = onnx.load(tome)
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"method"', '"mehtod"')
    onnx.save(model, path)


def _foreign_metadata(path: Path, tome: Path) -> None:
    model = onnx.load(tome)
    model.metadata_props[0].value = model.metadata_props[0].value.replace("block0/map", "elsewhere")
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, r"no such file\. Check the path\.$"),
        (_empty, r"is empty\. Export it again\.$"),
        (_truncated, r"is no ONNX file, or a truncated one\. Export it again\.$"),
        (_text, r"is no ONNX file, or a truncated one"),
        (_engine, r"is no ONNX file, or a truncated one"),
        (_weights_elsewhere, r"weights lie in another file that cannot be read .*Put that file beside it"),
        (_scatter_sum, r"node 'merge' is a ScatterElements with reduction 'add', which TensorRT refuses or silently"),
        (_foreign_op, r"node 'm' is of the op other::Magic, .* no function body\. Replace it by standard ONNX ops"),
        (_lost_functions, r"op tmdeploy::TokenMatch, .* no function body\. Export it again: the file lost its func"),
        (_damaged_metadata, r"metadata cannot be read \(card.recipe.method"),
        (_foreign_metadata, r"metadata names a tensor 'elsewhere' that its graph does not have.*export it again"),
    ],
)  # fmt: skip
def test_broken_files(damage: Callable[[Path, Path], None], message: str, tome: Path, tmp_path: Path):
    path = tmp_path / "broken.onnx"
    damage(path, tome)
    with pytest.raises(ArtifactError, match=message) as raised:
        load_source(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": 2}, r"takes x0 \(4-D\), x1 \(4-D\), not one batch of images"),
        ({"shape": ("n", 10)}, r"takes x0 \(2-D\), not one batch"),
        (
            {"shape": ("n", 3, "h", "w")},
            r"takes one image size, that of its position embeddings.*--image-size, and build one",
        ),
    ],
)
def test_models_of_other_inputs(changes: dict, message: str):
    with pytest.raises(ArtifactError, match=message):
        fixed_images(_model(**changes), Path("f.onnx"))


def test_a_good_file_is_read(tome: Path):
    model, metadata = load_source(tome)
    assert metadata is not None
    assert metadata.card.reduction.method == "tome"
    assert fixed_images(model, tome).name == "images"  # r has a default, so it is no second input
