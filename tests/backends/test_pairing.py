from pathlib import Path
from types import SimpleNamespace

from tmdeploy.backends.pairing import image_labels

PATHS = [Path("val/n02123045/a.jpg"), Path("val/n02099601/3_b.jpg")]


def _runner(classes: int, names: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(card=SimpleNamespace(num_classes=classes), class_names=names)


def test_the_report_says_where_classes_are_from_the_order_of_folders():
    labels, said = image_labels(PATHS, _runner(2))
    assert (list(labels.values()), said) == ([1, 0], " (classes: its 2 folders in sorted order)")
    labels, said = image_labels(PATHS, _runner(10))
    assert (list(labels.values()), said) == ([-1, 3], "")


def test_features_are_no_classes():
    labels, said = image_labels(PATHS, _runner(0))
    assert (list(labels.values()), said) == ([-1, -1], "")


def test_names_that_are_not_one_a_class_are_not_used():
    paths = [Path("set/cat/a.jpg")]
    assert image_labels(paths, _runner(2, ("dog", "cat")))[0] == {paths[0]: 1}
    assert image_labels(paths, _runner(2, ("background", "dog", "cat")))[0] == {paths[0]: -1}
