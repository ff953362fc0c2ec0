"""The kind of a file by its first bytes: not everything named `.pt` is a checkpoint."""

from __future__ import annotations

from pathlib import Path

from tmdeploy.errors import CheckpointError

# Many training scripts name files of torch.save `.tar`: model_best.pth.tar.
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
SAFETENSORS_SUFFIXES = (".safetensors",)
CHECKPOINT_SUFFIXES = TORCH_SUFFIXES + SAFETENSORS_SUFFIXES
_HEAD = 512
_GET_AGAIN = "Check the path, or get the file again"

# First bytes, name of the format, remedy.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image", _GET_AGAIN),
    (b"\x89PNG", "a PNG image", _GET_AGAIN),
    (b"version https://git-lfs", "a Git LFS pointer", "Fetch them with: git lfs pull"),
    (b"<!DOCTYPE", "a web page", "Download the file itself, not the page about it"),
    (b"<!doctype", "a web page", "Download the file itself, not the page about it"),
    (b"<html", "a web page", "Download the file itself, not the page about it"),
    (b"%PDF", "a PDF document", _GET_AGAIN),
    (b"\x1f\x8b", "gzip-compressed", "Unpack it first"),
    (b"BZh", "bzip2-compressed", "Unpack it first"),
    (b"\xfd7zXZ", "xz-compressed", "Unpack it first"),
    (b"\x89HDF", "an HDF5 file", "Save a PyTorch state_dict instead"),
    (b"GGUF", "a GGUF file", "Save a PyTorch state_dict instead"),
)


def check_is_file(path: Path) -> None:
    """Refuse what cannot be a checkpoint, whatever its content.

    Raises:
        CheckpointError: The path is missing, a folder, empty, or unreadable.
    """
    try:
        if path.is_dir():
            found = sorted(child for child in path.iterdir() if child.suffix.lower() in CHECKPOINT_SUFFIXES)
            remedy = f"Name a file in it, such as {found[0]}" if found else "Name the checkpoint file in it"
            raise CheckpointError("is a folder, not a checkpoint", path=path, remedy=remedy)
        if not path.exists():
            raise CheckpointError("no such file", path=path, remedy="Check the path")
        if not path.is_file():
            raise CheckpointError("is not a regular file", path=path, remedy="Name a checkpoint file")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise CheckpointError("is empty (0 bytes)", path=path, remedy="Get the file again")
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", path=path, remedy="Check it") from error


def read_head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def is_zip(head: bytes) -> bool:
    """Whether the file begins like a zip archive, as torch.save's files do."""
    return head.startswith(b"PK\x03\x04")


def is_pickle(head: bytes) -> bool:
    """Whether the file begins like a binary pickle, as files of torch older than 1.6 do."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def is_safetensors(head: bytes) -> bool:
    """Whether the file begins like a safetensors file: eight bytes of length, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40


def not_a_checkpoint(path: Path, head: bytes) -> CheckpointError:
    """The error for a file of no known checkpoint format, saying what it is instead."""
    for magic, what, remedy in _MAGIC:
        if head.startswith(magic):
            return CheckpointError(f"is {what}, not a checkpoint", path=path, remedy=remedy)
    if head[257:262] == b"ustar":
        return CheckpointError("is a tar archive, not a checkpoint", path=path, remedy="Unpack it first")
    if path.suffix.lower() == ".onnx":
        what = "is an ONNX model, not a checkpoint"
        return CheckpointError(what, path=path, remedy="Give the PyTorch checkpoint that it was exported from")
    if _is_text(head):
        return CheckpointError("is a text file, not a checkpoint", path=path, remedy=_GET_AGAIN)
    return CheckpointError(
        "is no checkpoint: neither a file of torch.save nor safetensors",
        path=path,
        remedy="Give a .pt, .pth or .safetensors file",
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # the last character may be incomplete
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)
