"""Files that declare what they do not have, or say of themselves what is not so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tmdeploy.backends import open_runner
from tmdeploy.card.metadata import METADATA_KEY
from tmdeploy.data.labels import read_class_names
from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.graph.onnx_file import read_onnx

Damage = Callable[[onnx.ModelProto], None]


def _says(**fields: Any) -> Damage:
    """Metadata with other values; `architecture__depth` reaches into it."""

    def damage(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
        document = json.loads(entry.value)
        for name, value in fields.items():
            *path, last = name.split("__")
            inner = document
            for key in path:
                inner = inner[int(key) if key.isdigit() else key]
            inner[last] = value
        entry.value = json.dumps(document)

    return damage


def _dims(*dims: int) -> Damage:
    def damage(model: onnx.ModelProto) -> None:
        model.graph.initializer[1].dims[:] = dims

    return damage


def _type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 99


def _no_tensor_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].data_type = 0


def _dangling(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.name == "block0/TokenMatch").input[0] = "nowhere"


def _no_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def _outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[1]
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _says(version=99),
            r"metadata has version 99, and this tmdeploy reads up to 2\. A newer tmdeploy wrote it: up",
        ),
        (_says(version=99, unheard_of=1), r"has version 99"),
        (_says(card__version=2), r"its model card has version 2, and this tmdeploy reads up to 1\. A newer"),
        (_says(version="new"), r"cannot be read \(version: "),
        (_says(card__architecture={"depth": -3}), r"\(card\.architecture\.vit: a size or count is not positive\)"),
        (_says(card__architecture__depth=10**8), r"architecture.vit.depth: Input should be less than or equal to 512"),
        (
            _says(card__architecture__image_size=[2**20] * 2, card__preprocessing__image_size=[2**20] * 2),
            r"image_size.0: Input should be less than or equal to 16384",
        ),
        (
            _says(card__architecture__image_size=[64, 64]),
            r"makes images of 32 x 32, the model takes 64 x 64",
        ),
        (
            _says(card__architecture__num_classes=11, card__class_names=[]),
            r"speaks of 11 classes, but its output is \[batch, 10\]",
        ),
        (_says(preprocessing_in_graph=True), r"speaks of pixels of 32 x 32, but its input is \[batch, 3, 32, 32\]"),
        (
            _says(card__recipe__layers=list(range(6, 0, -1))),
            r"card.recipe: layers are not in ascending order",
        ),
        (
            _says(card__recipe__layers=list(range(10**5)), card__recipe__amounts=[1] * 10**5),
            r"a reduction step in block 6 of 6 blocks",
        ),
        (_says(card__recipe__amounts=[8]), r"card.recipe: 1 amounts for 6 layers"),
        (_says(card__recipe__amounts=[10**400] + [8] * 5), r"schedule is negative, or beyond any number of tokens"),
        (_says(card__recipe__amounts=[-1] + [8] * 5), r"an amount of its schedule is negative"),
        (_says(schedule_input="amounts"), r"schedule_input: Input should be 'r' or 'keep'"),
        (_says(schedule_input="keep"), r"speaks of an input 'keep' of 6 amounts; there is none"),
        (_says(steps=[]), r"steps: 0 of other blocks than the 6 layers"),
        (_says(steps__0__block=3), r"steps: 6 of other blocks"),
        (_says(steps__0__num_prefix=60), r"steps: 65 to 57 tokens in block 0"),
        (_says(steps__1__tokens_in=2**40), r"steps: 1099511627776 to 49 tokens in block 1, where 57 arrive"),
        (_dims(2**40), r"tensor '.*' declares \[1099511627776\] of float, 4398046511104 bytes, but holds \d+\. Export"),
        (_dims(-4), r"tensor '.*' has a negative side: \[-4\]"),
        (_dims(2**62, 2**62), r"but holds"),
        (_type, r"is damaged \('images' is of the unknown type 99\)"),
        (_no_tensor_type, r"is of the unknown type 0"),
        (_dangling, r"is damaged \(node 'block0/TokenMatch' reads 'nowhere', which nothing computes\)"),
        (_no_output, r"is damaged \(nothing computes its output 'nowhere'\)"),
        (_outside, r"its weights lie in another file that cannot be read \(.*secret.bin"),
    ],
)
def test_what_cannot_be_is_refused(damage: Damage, message: str, digits_onnx: Path, tmp_path: Path):
    model = onnx.load(digits_onnx)
    damage(model)
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 20))
    path = folder / "broken.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=message) as raised:
        read_onnx(path)
    assert len(str(raised.value)) < 600
    with pytest.raises(ArtifactError) as raised:  # the same from a runner, or ONNX Runtime's own words
        open_runner(path)
    assert str(path) in str(raised.value)


def test_metadata_of_another_graph_is_noticed(digits_onnx: Path, tmp_path: Path):
    model = onnx.load(digits_onnx)
    _says(steps__2__metric="elsewhere")(model)
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    with pytest.raises(
        ArtifactError, match=r"names a tensor 'elsewhere' that its graph does not have\. It was changed"
    ):
        read_onnx(path)


def test_names_that_are_no_text(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = digits_onnx.read_bytes()
    path = tmp_path / "broken.onnx"
    path.write_bytes(content.replace(b"block0/map", b"block0/m\xffp"))
    with pytest.raises(ArtifactError, match=r"is damaged \(a name in it is no UTF-8\)\. Export it again\.$"):
        read_onnx(path)
    done = run(capsys, "inspect", path)
    assert (done.code, done.err.count("\n"), "Traceback" in done.err) == (4, 1, False)
    assert "internal error" not in done.err


@pytest.mark.parametrize("keep", ["batch", "tokens", "empty"])
def test_outputs_that_are_no_class_scores(
    keep: str, digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = onnx.load(digits_onnx)
    del model.metadata_props[:]
    helper = onnx.helper
    made = {
        "batch": [helper.make_node("ReduceMean", ["logits"], ["out"], keepdims=0)],
        "tokens": [helper.make_node("Unsqueeze", ["logits", "one"], ["out"])],
        "empty": [helper.make_node("Slice", ["logits", "zero", "zero", "one"], ["out"])],
    }[keep]
    model.graph.node.extend(made)
    for name, number in (("zero", 0), ("one", 1)):
        model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [1], [number]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None))
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    done = run(capsys, "infer", path, EXAMPLES / "digits" / "3_0.png")
    assert done.code == 4
    assert "not one row of class scores an image. Give an image classifier" in done.err


def test_weights_in_another_file_are_read(digits_onnx: Path, tmp_path: Path):
    model = onnx.load(digits_onnx)
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert [tensor.raw_data for tensor in read_onnx(path)[0].graph.initializer] == [
        tensor.raw_data for tensor in onnx.load(digits_onnx).graph.initializer
    ]
    (tmp_path / "weights.bin").unlink()
    assert len(read_onnx(path, weights=False)[0].graph.initializer) == len(model.graph.initializer)
    with pytest.raises(ArtifactError, match=r"Put that file beside it, under its old name\.$"):
        read_onnx(path)


def test_a_foreign_file_for_images_that_nobody_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    images = helper.make_tensor_value_info("images", kind, ["batch", 3, 2**17, 2**17])
    scores = helper.make_tensor_value_info("scores", kind, ["batch", 3])
    graph = helper.make_graph([helper.make_node("ReduceMax", ["images"], ["scores"])], "giant", [images], [scores])
    path = tmp_path / "giant.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    done = run(capsys, "infer", path, EXAMPLES / "digits" / "3_0.png")
    assert (done.code, done.err) == (4, f"error: {path}: takes images of 131072 x 131072 pixels\n")


def test_class_names_nested_too_deeply(tmp_path: Path):
    path = tmp_path / "names.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is no list of class names"):
        read_class_names(path)
