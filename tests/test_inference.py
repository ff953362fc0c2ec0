from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ModelCard
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import ArtifactError, DataError
from tmdeploy.inference import classify


class _Runner:
    """Gives the rows that it is told to."""

    name, path = "m.onnx", Path("m.onnx")
    preprocessing, pixels_in, class_names, load_seconds = Preprocessing(image_size=(8, 8)), False, (), 0.0
    metadata: ArtifactMetadata | None = None
    card: ModelCard | None = None
    facts = RunnerFacts("fake", "1")

    def __init__(self, logits: object) -> None:
        self.logits = np.array(logits, dtype=np.float32)

    def infer(self, images: np.ndarray, schedule: Sequence[int] | None = None) -> np.ndarray:
        return self.logits


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    return paths


def test_probabilities_are_the_softmax_and_ties_go_to_the_lower_class(images: list[Path]):
    found = classify(_Runner([[0.0, np.log(3.0)], [1.0, 1.0]]), images, top_k=9)
    assert [[guess.index for guess in image.top] for image in found.images] == [[1, 0], [0, 1]]
    assert found.images[0].top[0].probability == pytest.approx(0.75)
    assert found.unclassified == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_give_no_class(value: float, images: list[Path]):
    found = classify(_Runner([[0.0, value], [-np.inf, 1.0]]), images)
    assert found.unclassified == found.images[:1]
    assert (found.images[0].top, found.images[0].problem) == ((), "its logits are NaN or infinite")
    assert found.images[1].top[0].probability == 1.0
    assert len(classify(_Runner(np.full((2, 2), -np.inf)), images).unclassified) == 2


@pytest.mark.parametrize("shape", [(2,), (2, 3, 4), (1, 3), (2, 0)])
def test_what_is_no_row_of_logits_an_image_is_refused(shape: tuple[int, ...], images: list[Path]):
    with pytest.raises(ArtifactError, match=r"m\.onnx: gives \[.*\] for 2 images, not a row of logits each"):
        classify(_Runner(np.zeros(shape)), images)


def test_names_must_be_as_many_as_classes(images: list[Path]):
    runner = _Runner(np.zeros((2, 3)))
    assert classify(runner, images, class_names="abc").images[0].top[0].name == "a"
    for names in ("ab", "abcd"):
        with pytest.raises(DataError, match=rf"n\.txt: has {len(names)} class names, and the model has 3 classes"):
            classify(runner, images, class_names=names, names_from=Path("n.txt"))
    with pytest.raises(DataError, match="Leave out its first, '__background__', which is no class of this model"):
        classify(runner, images, class_names=("__background__", *"abc"), names_from=Path("n.txt"))


def test_a_model_without_a_classifier_is_refused(images: list[Path]):
    runner = _Runner(np.zeros((2, 384)))
    classify(runner, images)  # a file of other origin says nothing of it
    runner.card = ModelCard(architecture=VitConfig(num_classes=0))
    with pytest.raises(ArtifactError, match=r"m\.onnx: has no classifier: it gives features"):
        classify(runner, images)
