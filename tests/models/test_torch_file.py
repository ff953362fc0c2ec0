import argparse
import io
import os
import pathlib
import pickle
import random
import struct
import sys
import types
import zipfile

import numpy
import pytest
import torch

from tests.models.weights import small_model, small_weights
from tmdeploy.errors import CheckpointError
from tmdeploy.models.checkpoint import load_model
from tmdeploy.models.torch_file import read

WEIGHTS = small_weights()
OLD = {"_use_new_zipfile_serialization": False}


class RunsOnUnpickling:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(mark):
    yield RunsOnUnpickling(os.system, f"touch {mark}")
    yield RunsOnUnpickling(exec, f"open({str(mark)!r}, 'w').close()")
    yield RunsOnUnpickling(open, str(mark), "w")
    yield RunsOnUnpickling(eval, f"open({str(mark)!r}, 'w').close()")


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old-format"])
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("place", ["alone", "beside"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, number, old, place):
    mark, path = tmp_path / "it-ran", tmp_path / "evil.pt"
    payload = list(payloads(mark))[number]
    torch.save(payload if place == "alone" else {"model": WEIGHTS, "args": payload}, path, **(OLD if old else {}))
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert not mark.exists()
    message = str(caught.value)
    assert message.startswith(f"{path}: refused: besides weights, its pickle asks for ")
    assert "--trust-checkpoint" in message
    assert "\n" not in message


def test_the_same_file_does_run_when_it_is_trusted(tmp_path):
    # which proves that the payload above works, and that trust is what it says
    mark, path = tmp_path / "it-ran", tmp_path / "evil.pt"
    torch.save({"model": WEIGHTS, "args": RunsOnUnpickling(os.system, f"touch {mark}")}, path)
    load_model(path, trust_checkpoint=True)
    assert mark.exists()


def test_the_refusal_names_what_is_asked_for(tmp_path):
    torch.save({"model": WEIGHTS, "x": RunsOnUnpickling(exec, "pass")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="its pickle asks for exec, which could run code"):
        read(tmp_path / "evil.pt", trust=False)


def test_a_namespace_does_not_become_a_door(tmp_path):
    # the one class that is allowed besides torch's own: its attributes are data, its state cannot run anything
    namespace = argparse.Namespace(payload=RunsOnUnpickling(os.system, f"touch {tmp_path / 'it-ran'}"))
    torch.save({"model": WEIGHTS, "args": namespace}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"asks for posix.system"):
        read(tmp_path / "evil.pt", trust=False)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old-format"])
def test_a_deit_checkpoint_with_its_training_options_loads_without_trust(tmp_path, old):
    held = {
        "model": WEIGHTS,
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"last_epoch": 2},
        "epoch": 2,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="deit_small_patch16_224", lr=5e-4, drop_loc="(3, 6, 9)", nested=[1, (2, 3)]),
    }
    torch.save(held, tmp_path / "checkpoint.pth", **(OLD if old else {}))
    model, loaded = load_model(tmp_path / "checkpoint.pth")
    assert torch.equal(model.norm.bias, WEIGHTS["norm.bias"])
    assert loaded.card.recipe is None
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


class AttributeDict(dict):
    """Lightning's, by name."""


AttributeDict.__module__ = "lightning.fabric.utilities.data"


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old-format"])
def test_what_training_frameworks_record_needs_no_trust(tmp_path, old, monkeypatch):
    with monkeypatch.context() as context:  # so that it can be pickled; it is not there to be read
        for length in range(1, 5):
            name = ".".join(AttributeDict.__module__.split(".")[:length])
            context.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[AttributeDict.__module__].AttributeDict = AttributeDict
        held = {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": {f"model.{name}": tensor for name, tensor in WEIGHTS.items()},
            "hyper_parameters": AttributeDict(lr=1e-3, folder=pathlib.Path("/data")),
            "best": numpy.float64(0.75),
            "options": types.SimpleNamespace(a=1, path=pathlib.Path("/data")),
        }
        torch.save(held, tmp_path / "last.ckpt", **(OLD if old else {}))
    model, loaded = load_model(tmp_path / "last.ckpt")
    assert torch.equal(model.norm.bias, WEIGHTS["norm.bias"])
    assert loaded.card.recipe is None
    assert AttributeDict.__module__ not in sys.modules


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old-format"])
def test_a_record_does_not_become_a_door(tmp_path, old):
    mark = tmp_path / "it-ran"
    record = types.SimpleNamespace(payload=RunsOnUnpickling(os.system, f"touch {mark}"))
    torch.save({"model": WEIGHTS, "options": record}, tmp_path / "evil.pt", **(OLD if old else {}))
    with pytest.raises(CheckpointError, match=r"asks for posix.system"):
        read(tmp_path / "evil.pt", trust=False)
    assert not mark.exists()


def test_a_whole_module_needs_trust(tmp_path):
    model = small_model()
    torch.save({"model": model, "epoch": 1}, tmp_path / "module.pt")
    with pytest.raises(
        CheckpointError, match=r"VisionTransformer.*Save model\.state_dict\(\) instead.*trust-checkpoint"
    ):
        load_model(tmp_path / "module.pt")
    trusted, _ = load_model(tmp_path / "module.pt", trust_checkpoint=True)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(trusted(images), model(images))


def test_trusted_code_that_is_not_installed_is_named(tmp_path):
    # protocol 2 by hand: the global `absent_package.Model`, called without arguments
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "absent.pt", "w") as target:
        for name in source.namelist():
            body = source.read(name)
            target.writestr(name, b"\x80\x02cabsent_package\nModel\n)R." if name.endswith("/data.pkl") else body)
    with pytest.raises(CheckpointError, match=r"No module named 'absent_package'.*Install that package"):
        read(tmp_path / "absent.pt", trust=True)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old-format"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("trust", [False, True])
def test_a_truncated_file(tmp_path, old, share, trust):
    path = tmp_path / "model.pt"
    torch.save({"model": WEIGHTS}, path, **(OLD if old else {}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"is truncated or damaged.*Get the file again") as caught:
        load_model(path, trust_checkpoint=trust)
    assert "\n" not in str(caught.value)


def test_a_torchscript_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/a.py"):
            archive.writestr(name, b"")
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        load_model(tmp_path / "script.pt")


def test_a_zip_that_is_not_torchs(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"zip archive, but not one of torch.save \(it holds readme.txt\)"):
        load_model(tmp_path / "a.pt")


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02.")
        archive.writestr("a/data/0", bytes(8 << 20))
    with pytest.raises(CheckpointError, match=r"is a compressed zip archive, which torch.save does not write"):
        load_model(tmp_path / "bomb.pt")


def test_a_plain_pickle_is_not_even_tried(tmp_path):
    mark = tmp_path / "it-ran"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(RunsOnUnpickling(os.system, f"touch {mark}"), protocol=2))
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=r"is a pickle, but not one of torch\.save"):
            load_model(tmp_path / "plain.pt", trust_checkpoint=trust)
    assert not mark.exists()


def test_damaged_bytes_end_in_our_error_or_in_a_model(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"model": {"a.weight": torch.zeros(2, 2)}, "args": argparse.Namespace(x=1)}, path)
    whole = path.read_bytes()
    start = whole.index(b"data.pkl")
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(start, start + 400)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path, trust=False)
        except CheckpointError:
            refused += 1
    assert refused > 50  # any other exception would have ended this test


def test_an_absurd_storage_size_allocates_nothing(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a.weight": torch.zeros(300, 300)}, path)
    whole = path.read_bytes()
    # the pickled count of elements, BININT 90000, becomes two thousand million
    old, new = b"J" + struct.pack("<i", 90000), b"J" + struct.pack("<i", 2_000_000_000)
    assert old in whole
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(CheckpointError, match="damaged"):
        read(path, trust=False)
