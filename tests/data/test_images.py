import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.images import ImageReader, find_images, is_among, nothing_readable, random_images, told_apart
from tmdeploy.errors import DataError

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
    assert reasons["empty.png"] == "not an image, or damaged"
    assert reasons["gone.png"] == "No such file or directory"
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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def _skipped(*paths: Path, spec: Preprocessing = SPEC) -> dict[str, str]:
    reader = ImageReader(paths, spec)
    assert list(reader.batches(8)) == []
    return {path.name: reason for path, reason in reader.skipped}


def test_postscript_is_never_handed_on_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import EpsImagePlugin

    cat = tmp_path / "cat.jpg"
    cat.write_bytes(POSTSCRIPT)
    with Image.open(cat) as image:  # what the file is: Pillow by itself would load it with Ghostscript
        assert image.format == "EPS"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    assert _skipped(cat) == {"cat.jpg": "not an image, or damaged"}


def test_formats_without_their_suffix_are_told_by_their_content(tmp_path: Path):
    for kind in ("PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG"):
        _save(tmp_path / f"{kind}.png")
        Image.new("RGB", (10, 12)).save(tmp_path / f"{kind}.jpg", format=kind)
    more = [Image.new("RGB", (10, 12))]
    Image.new("RGB", (10, 12)).save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=more)
    assert len(ImageReader(find_images([tmp_path]), SPEC).all().paths) == 15


def test_photos_of_other_formats_and_what_is_no_file_are_counted(tmp_path: Path):
    good = _save(tmp_path / "z.png")
    for name in ("a.HEIC", "b.avif"):
        (tmp_path / name).write_bytes(b"....ftypheic")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    found = find_images([tmp_path])
    assert [path.name for path in found[-2:]] == ["a.HEIC", "b.avif"]  # so that a limit takes the others
    reader = ImageReader(found, SPEC)
    assert reader.all().paths == (good,)
    assert {path.name: reason for path, reason in reader.skipped} == {
        "a.HEIC": "HEIC is not read: convert it to JPEG or PNG",
        "b.avif": "AVIF is not read: convert it to JPEG or PNG",
        "pipe.png": "a pipe, device or folder, not a file",
        "gone.jpg": "No such file or directory",
    }


def test_an_image_that_resizing_would_blow_up_is_refused(tmp_path: Path):
    strip, square = tmp_path / "strip.png", _save(tmp_path / "square.png")
    Image.new("L", (1, 40_000)).save(strip)
    reasons = _skipped(strip, spec=Preprocessing(image_size=(224, 224)))
    assert reasons["strip.png"] == "1 x 40000 pixels, of which resizing makes 256 x 10240000"
    assert "resizing makes" in _skipped(square, spec=SPEC.model_copy(update={"crop_pct": 1e-4}))["square.png"]


def test_links_to_folders_are_followed_once_and_cycles_end(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _save(elsewhere / "d.png")
    for link, target in (
        ("loop", folder),
        ("deep/up", folder),
        ("deep/er/self", folder / "deep"),
        ("other", elsewhere),
    ):
        (folder / link).symlink_to(target)
    (folder / "another").symlink_to(elsewhere)
    names = ["b.png", "d.png", "a.JPG", "c.webp"]
    assert sorted(path.name for path in find_images([folder])) == sorted(names)
    assert sorted(path.name for path in find_images([f"{folder}/**/*.*[gGp]"])) == sorted(names)
    assert sorted(path.name for path in find_images([f"{folder}/**"])) == sorted(names)
    assert [path.name for path in find_images([f"{folder}/**/er/**/*.webp"])] == ["c.webp"]


def test_an_empty_name_is_not_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match="an empty name where images should be"):
        find_images([""])


def test_a_folder_without_permission_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def forbidden(path: Path) -> object:
        if Path(path).name in {"closed", "top"}:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    for name in ("closed", "top"):
        (folder / name).mkdir()
    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DataError, match=r"top: this folder cannot be read\. Check its permissions"):
        find_images([folder / "top"])
    (folder / "top").rmdir()
    reader = ImageReader(find_images([folder]), SPEC)
    assert len(reader.all().paths) == 3
    assert reader.skipped == [(folder / "closed", "Permission denied")]


def test_equal_names_are_told_apart_by_their_folders():
    paths = [Path(name) for name in ("x/a/1.png", "x/b/1.png", "2.png", "y/a/3.png", "z/a/3.png", "3.png", "3.png")]
    assert told_apart(paths) == ("a/1.png", "b/1.png", "2.png", "y/a/3.png", "z/a/3.png", "3.png", "3.png")


def test_whether_a_file_is_among_what_would_be_read(folder: Path):
    inside, text = folder / "deep" / "er" / "c.webp", folder / "notes.txt"
    for source in (folder, folder / "deep", f"{folder}/**/*.webp", f"{folder}/d*", f"{folder}/**"):
        assert is_among(inside, [folder / "none", source])
    assert not is_among(inside, [f"{folder}/*.JPG", folder / "b.png"])
    assert not is_among(text, [folder])
    assert is_among(text, [f"{folder}/*.txt"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_are_read(tmp_path: Path):
    path = _save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert ImageReader(find_images([tmp_path]), SPEC).all().paths == (path,)
