from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tmdeploy.errors import DataError
from tmdeploy.images import ImageReader, find_images, nothing_readable, random_images
from tmdeploy.metadata import Preprocessing

SPEC = Preprocessing(image_size=(8, 8), crop_pct=1.0)


def _save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 12), (value, value, value)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["b.png", "a.JPG", "deep/er/c.webp"]):
        _save(tmp_path / name, number)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_folders_are_searched_to_the_bottom_and_sorted(folder: Path):
    assert [path.name for path in find_images([folder])] == ["a.JPG", "b.png", "c.webp"]


def test_files_and_globs_keep_the_order_of_the_sources(folder: Path):
    found = find_images([folder / "b.png", f"{folder}/*.JPG", f"{folder}/de*"])
    assert [path.name for path in found] == ["b.png", "a.JPG", "c.webp"]
    everything = find_images([f"{folder}/**/*.webp", f"{folder}/deep/**"])
    assert [path.name for path in everything] == ["c.webp", "c.webp"]


def test_a_named_file_is_taken_whatever_its_suffix(folder: Path):
    assert find_images([folder / "notes.txt"]) == [folder / "notes.txt"]


@pytest.mark.parametrize("source", ["missing", "*.gif", "empty"])
def test_nothing_found_is_an_error_that_names_the_source(source: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        find_images([tmp_path / source])
    assert source in str(caught.value)


def test_reader_yields_full_batches_and_the_rest(tmp_path: Path):
    paths = [_save(tmp_path / f"{number}.png", number * 20) for number in range(5)]
    batches = list(ImageReader(paths, SPEC, in_graph=True).batches(2))
    assert [len(batch.paths) for batch in batches] == [2, 2, 1]
    assert [int(image[0, 0, 0]) for batch in batches for image in batch.images] == [0, 20, 40, 60, 80]
    assert batches[0].images.dtype == np.uint8
    assert ImageReader(paths, SPEC).all().images.shape == (5, 3, 8, 8)


def test_what_cannot_be_read_is_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good = _save(tmp_path / "good.png")
    empty, text, cut = tmp_path / "empty.png", tmp_path / "text.jpg", tmp_path / "cut.png"
    empty.touch()
    text.write_text("hello")
    cut.write_bytes(good.read_bytes()[:40])
    bomb = tmp_path / "bomb.png"
    Image.new("L", (100, 100)).save(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    reader = ImageReader([empty, text, good, cut, bomb, tmp_path / "gone.png"], SPEC)
    (batch,) = reader.batches(4)
    assert batch.paths == (good,)
    reasons = {path.name: reason for path, reason in reader.skipped}
    assert set(reasons) == {"empty.png", "text.jpg", "cut.png", "bomb.png", "gone.png"}
    assert "not an image" in reasons["empty.png"]
    assert "bomb" in reasons["bomb.png"]
    assert all("\n" not in reason for reason in reasons.values())


def test_nothing_readable_names_the_first_and_counts_the_others(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image: .*\(and 1 more\)"):
        ImageReader(find_images([tmp_path]), SPEC).all()
    assert "no images" in str(nothing_readable([]))


def test_folders_among_files_are_not_images(tmp_path: Path):
    (tmp_path / "folder.png").mkdir()
    _save(tmp_path / "x.png")
    assert [path.name for path in find_images([tmp_path])] == ["x.png"]


def test_random_images_are_seeded_and_look_like_pixels():
    one, again, other = (random_images(3, SPEC, in_graph=True, seed=seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert (one.dtype, one.shape) == (np.uint8, (3, 8, 8, 3))
    assert len({image.tobytes() for image in one}) == 3
    assert random_images(2, SPEC, in_graph=False).shape == (2, 3, 8, 8)
