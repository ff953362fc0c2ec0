import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from tests.models.weights import small_weights
from tmdeploy.errors import CheckpointError
from tmdeploy.models.checkpoint import load_model
from tmdeploy.models.safetensors_file import read

WEIGHTS = small_weights()


def written(tmp_path, header, body=b""):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_foreign_weights_load(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, loaded = load_model(tmp_path / "model.safetensors")
    assert torch.equal(model.head.weight, WEIGHTS["head.weight"])
    assert (loaded.card.recipe, loaded.card.class_names) == (None, ())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in WEIGHTS.items()}, tmp_path / "model.safetensors")
    model, _ = load_model(tmp_path / "model.safetensors")
    assert torch.equal(model.head.weight, WEIGHTS["head.weight"].to(dtype).float())


def test_the_suffix_does_not_matter(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.pt")
    torch.save(WEIGHTS, tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        assert load_model(tmp_path / name)[1].config.width == 64


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 2**31, 1000])
def test_an_absurd_header_length_is_not_believed(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CheckpointError, match=f"its header says {length} bytes, the file has 10"):
        load_model(path)


@pytest.mark.parametrize("share", [0.0005, 0.5, 0.99])
def test_a_truncated_file(tmp_path, share):
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(4, int(len(whole) * share))])
    with pytest.raises(CheckpointError, match=r"is truncated or damaged.*Get the file again"):
        load_model(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"[]",
        {"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 60]}},
    ],
)
def test_a_damaged_header(tmp_path, header):
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read(written(tmp_path, header, bytes(8)), trust=False)


def test_a_damaged_description(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors", metadata={"tmdeploy": "{"})
    with pytest.raises(CheckpointError, match="its tmdeploy description is no JSON object"):
        read(tmp_path / "model.safetensors", trust=False)
