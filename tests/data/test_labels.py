import json
from pathlib import Path

import pytest

from tmdeploy.data.labels import folders_in_order, labels_of, name_of, read_class_names
from tmdeploy.errors import DataError


def _labels(*paths: str, **options: object) -> list[int | None]:
    return list(labels_of([Path(path) for path in paths], **options))


def test_file_names_that_begin_with_an_index():
    assert _labels("d/207_n02099601_golden_retriever.jpg", "d/7_0.png", "d/photo.png") == [207, 7, None]


def test_a_number_beyond_the_classes_is_no_class():
    assert _labels("d/2024_holiday.jpg", "d/3_x.jpg", num_classes=10) == [None, 3]


def test_folders_named_by_class_or_index():
    assert _labels("set/cat/1.jpg", "set/dog/1.jpg", class_names=["dog", "cat"]) == [1, 0]
    assert _labels("set/4/a.jpg", "set/11/b.jpg", num_classes=12) == [4, 11]


def test_a_name_that_two_classes_share_says_nothing():
    assert _labels("set/crane/a.jpg", class_names=["crane", "owl", "crane"]) == [None]


def test_imagenets_layout_is_the_sorted_order_of_the_folders():
    paths = ["val/n02/a.jpg", "val/n01/b.jpg", "val/n03/c.jpg", "val/n01/5_d.jpg"]
    assert _labels(*paths, num_classes=3) == [1, 0, 2, 0]
    assert _labels(*paths, num_classes=4) == [None, None, None, None]  # a class is missing: nothing is certain
    assert _labels(*paths, num_classes=1000)[3] == 5


def test_folders_of_something_else_are_not_the_classes():
    months = ["photos/march/a.jpg", "photos/may/b.jpg"]
    assert _labels(*months, num_classes=2) == [0, 1]  # nothing says otherwise; the report names the rule
    assert _labels(*months, class_names=["cat", "dog"], num_classes=2) == [None, None]
    synsets = ["val/n02123045/a.jpg", "val/n02099601/b.jpg"]
    assert _labels(*synsets, class_names=["golden retriever", "tabby"], num_classes=2) == [1, 0]
    assert folders_in_order([Path("photos/a.jpg")], num_classes=1) == {}


def test_a_name_beyond_the_classes_is_no_class():
    assert _labels("set/owl/a.jpg", class_names=["cat", "dog", "owl"], num_classes=2) == [None]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "cat\n\nowl\n"),
        ("names.json", json.dumps(["cat", "", "owl"])),
        ("names.json", json.dumps({"2": "owl", "0": "cat", "1": ""})),
        ("names.json", json.dumps({"0": ["n1", "cat"], "1": ["n2", ""], "2": ["n3", "owl"]})),
    ],
)
def test_class_names_of_every_form(name: str, content: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(content)
    assert read_class_names(path) == ("cat", "", "owl")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.txt", None),
        ("binary.txt", b"\xff\xfe\x00"),
        ("empty.txt", b"\n\n"),
        ("broken.json", b"{"),
        ("number.json", b"3"),
        ("hole.json", b'{"0": "a", "2": "b"}'),
    ],
)
def test_what_has_no_names_is_refused(name: str, content: bytes | None, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_class_names(path)


def test_a_class_without_a_name_goes_by_its_index():
    assert [name_of(index, ("cat", "")) for index in (0, 1, 2)] == ["cat", "1", "2"]
