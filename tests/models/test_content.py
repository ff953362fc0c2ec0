import pytest

from tmdeploy.errors import CheckpointError
from tmdeploy.models.content import check_is_file, is_safetensors, not_a_checkpoint


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is a JPEG image, not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page.*Download the file itself"),
        (b"\x1f\x8b\x08\x00", "is gzip-compressed.*Unpack"),
        (b"hello, \xc3\xa9t\xc3\xa9\n", "is a text file"),
        (b"a" * 511 + "é".encode()[:1], "is a text file"),
        (b"\x00\x01\x02\x03\xff", "neither a file of torch.save nor safetensors"),
    ],
)
def test_foreign_content_is_named(tmp_path, head, message):
    error = not_a_checkpoint(tmp_path / "a.pt", head)
    with pytest.raises(CheckpointError, match=message):
        raise error


def test_an_onnx_file_is_known_by_its_suffix(tmp_path):
    error = not_a_checkpoint(tmp_path / "a.onnx", b"\x08\x0a\x12\x08tmdeploy")
    assert "is an ONNX model" in str(error)
    assert "Give the PyTorch checkpoint" in str(error)


def test_missing_empty_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file. Check the path"):
        check_is_file(tmp_path / "none.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match=r"is empty \(0 bytes\). Get the file again"):
        check_is_file(tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match=r"is a folder.*such as .*empty\.pt"):
        check_is_file(tmp_path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(CheckpointError, match=r"is a folder.*Name the checkpoint file in it"):
        check_is_file(tmp_path / "sub")


def test_a_name_that_is_too_long_is_an_error_of_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read|no such file"):
        check_is_file(tmp_path / ("x" * 5000))


def test_safetensors_is_known_by_length_and_brace():
    assert is_safetensors((8).to_bytes(8, "little") + b"{}      ")
    assert not is_safetensors(b"\xff" * 8 + b"{}")
    assert not is_safetensors(b"{}")
