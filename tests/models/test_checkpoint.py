import dataclasses
import tarfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.models.weights import SMALL, small_model, small_weights
from tmdeploy.backends import backend_for
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ModelCard
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import make_recipe
from tmdeploy.errors import ArtifactError, CheckpointError, UsageError
from tmdeploy.models import checkpoint
from tmdeploy.models.checkpoint import build_model, load_checkpoint, load_model, save_checkpoint
from tmdeploy.models.pos_embed import resize_pos_embed
from tmdeploy.models.vit import VisionTransformer
from tmdeploy.patching import patch
from tmdeploy.system.files import sha256

RECIPE = make_recipe("tome", depth=2, tokens=17, prefix=1, r="2")
CLASSES = ("a", "b", "c", "d", "e")
DIGITS = Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_tmdeploys_own_file_needs_nothing_else(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    # what no shape shows: four heads, oblong images
    model = small_model(heads=4, image_size=(32, 48), scales=(16,), resample="nearest")
    recipe = make_recipe("tome", depth=2, tokens=25, prefix=1, r="2")
    preprocessing = DIGITS.model_copy(update={"image_size": (32, 48)})
    save_checkpoint(path, model, recipe=recipe, preprocessing=preprocessing, class_names=CLASSES)
    again, loaded = load_model(path)
    assert loaded.config == model.config
    assert (loaded.card.recipe, loaded.card.preprocessing, loaded.card.class_names) == (recipe, preprocessing, CLASSES)
    assert (loaded.card.source_name, loaded.card.provenance.source_sha256) == (path.name, sha256(path))
    assert not again.training
    images = torch.randn(2, 3, 32, 48)
    assert torch.equal(again(images), model(images))


def test_the_files_are_as_documented(tmp_path):
    save_checkpoint(tmp_path / "a.pt", small_model(), recipe=RECIPE, class_names=CLASSES)
    held = torch.load(tmp_path / "a.pt", weights_only=True)
    assert held.keys() == {"format", "version", "card", "state_dict"}
    assert (held["format"], held["version"]) == ("tmdeploy", 2)
    assert held["card"].keys() == ModelCard.model_fields.keys()
    assert held["card"]["recipe"]["method"] == "tome"
    save_checkpoint(tmp_path / "a.safetensors", small_model())
    with safe_open(tmp_path / "a.safetensors", framework="pt") as stream:
        assert '"format": "tmdeploy"' in stream.metadata()["tmdeploy"]


def test_a_patched_model_saves_as_it_is_and_a_loaded_one_can_be_patched(tmp_path):
    model = patch(small_model(), RECIPE)
    save_checkpoint(tmp_path / "a.pt", model, recipe=RECIPE)
    again, loaded = load_model(tmp_path / "a.pt")
    assert loaded.card.recipe is not None
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(patch(again, loaded.card.recipe)(images), model(images))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")

    def fails(*_):
        raise RuntimeError("disk")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError):
        save_checkpoint(path, small_model())
    assert [child.name for child in tmp_path.iterdir()] == ["a.pt"]
    assert path.read_bytes() == b"old"


def test_what_does_not_fit_the_model_is_not_saved(tmp_path):
    model = small_model()
    with pytest.raises(UsageError, match="2 class names for 5 classes"):
        save_checkpoint(tmp_path / "a.pt", model, class_names=["a", "b"])
    with pytest.raises(UsageError, match=r"unknown checkpoint suffix '.onnx'"):
        save_checkpoint(tmp_path / "a.onnx", model)
    with pytest.raises(ArtifactError, match="cannot be written"):
        save_checkpoint(tmp_path / "none" / "a.pt", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_ema"])
def test_foreign_weights_are_inferred(tmp_path, key):
    weights = small_weights(distilled=True)
    torch.save(weights if key is None else {key: weights}, tmp_path / "a.pth")
    model, loaded = load_model(tmp_path / "a.pth")
    assert loaded.config == SMALL.replace(distilled=True)
    assert loaded.card.preprocessing.image_size == (32, 32)
    assert any("heads 1 (width / 64)" in note for note in loaded.notes)
    assert {"heads", "act", "mean"} <= {one.key for one in loaded.card.assumptions}
    assert torch.equal(model.state_dict()["head_dist.weight"], weights["head_dist.weight"])


def test_a_named_architecture_brings_its_preprocessing(tmp_path, timm):
    theirs = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    model, loaded = load_model(tmp_path / "vit.pth", arch="vit_tiny_patch16_224")
    assert loaded.card.preprocessing.mean == (0.5, 0.5, 0.5)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(images), rtol=0, atol=1e-5)
    assert load_checkpoint(tmp_path / "vit.pth").card.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("own", [False, True], ids=["foreign", "own"])
def test_another_image_size_interpolates_positions(tmp_path, own):
    model = small_model(registers=2)
    path = tmp_path / "a.pt"
    if own:
        save_checkpoint(path, model)
    else:
        torch.save(model.state_dict(), path)
    resized, loaded = load_model(path, image_size=48)
    assert loaded.config.image_size == loaded.card.preprocessing.image_size == (48, 48)
    expected = resize_pos_embed(model.pos_embed.detach(), old_grid=(4, 4), new_grid=(6, 6), num_prefix=3)
    assert torch.equal(resized.pos_embed, expected)
    assert resized(torch.zeros(1, 3, 48, 48)).shape == (1, 5)


def test_a_resized_model_is_timms(tmp_path, timm):
    arguments = {"patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 1, "num_classes": 3}
    theirs = timm.models.vision_transformer.VisionTransformer(img_size=32, **arguments).eval()
    torch.nn.init.normal_(theirs.pos_embed)
    torch.save(theirs.state_dict(), tmp_path / "a.pt")
    ours, _ = load_model(tmp_path / "a.pt", image_size=56)
    theirs.set_input_size((56, 56))
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_a_schedule_made_for_another_size_is_noted(tmp_path):
    save_checkpoint(tmp_path / "a.pt", small_model(), recipe=RECIPE)
    loaded = load_checkpoint(tmp_path / "a.pt", image_size=64)
    assert loaded.notes == ("its tome schedule was made for 17 tokens; at this image size there are 65",)


def test_options_that_contradict_tmdeploys_own_file(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, small_model(heads=4))
    with pytest.raises(UsageError, match="the checkpoint says that heads is 4, not 8"):
        load_checkpoint(path, num_heads=8)
    with pytest.raises(CheckpointError, match="the checkpoint is no deit_tiny_patch16_224: patch_size is 8, not 16"):
        load_checkpoint(path, arch="deit_tiny_patch16_224")
    assert load_checkpoint(path, num_heads=4).config.heads == 4


def test_an_unknown_architecture_is_said_before_the_file_is_read(tmp_path):
    with pytest.raises(UsageError, match="unknown architecture 'deit'"):
        load_checkpoint(tmp_path / "missing.pt", arch="deit")


def save_weights(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_missing_unexpected_and_misshaped_weights_are_listed(tmp_path):
    weights = small_weights()
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("blocks.1.norm")}
    del weights["patch_embed.proj.bias"], weights["norm.bias"]
    weights["head.bias"] = torch.zeros(7)
    weights["extra.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as caught:
        load_model(save_weights(tmp_path, weights))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.pt'}: the weights do not fit a ViT of width 64 and depth 2: ")
    listed = "5 missing (blocks.1.norm1.weight, blocks.1.norm1.bias, blocks.1.norm2.weight, blocks.1.norm2.bias, "
    assert f"{listed}norm.bias)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "1 mis-shaped (head.bias is [7], not [5])" in message
    assert "--arch" in message


def test_a_broken_position_embedding_is_an_error_even_when_it_is_resized(tmp_path):
    save_checkpoint(tmp_path / "a.pt", small_model())
    held = torch.load(tmp_path / "a.pt", weights_only=True)
    held["state_dict"]["pos_embed"] = torch.zeros(1, 3, 64)
    torch.save(held, tmp_path / "a.pt")
    for size in (None, 64):
        with pytest.raises(CheckpointError, match="position embedding has 3 entries: none for 4 x 4 patches"):
            load_checkpoint(tmp_path / "a.pt", image_size=size)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    weights = small_weights()
    weights["blocks.1.mlp.fc1.bias"][3] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in blocks\.1\.mlp\.fc1\.bias"):
        load_model(save_weights(tmp_path, weights))


def test_another_network_is_named_with_the_file(tmp_path):
    path = save_weights(tmp_path, {"conv1.weight": torch.zeros(1, 1, 3, 3), "layer1.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=f"^{path}: this looks like a ResNet"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"", "is empty"),
        ("a.pt", b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100), "is a JPEG image, not a checkpoint"),
        ("a.pth", b"epoch,loss\n1,0.5\n", "is a text file, not a checkpoint"),
        ("a.safetensors", b"hello", "is truncated or damaged"),
        ("a.pt", bytes(range(256)), "is no checkpoint"),
        ("a", b"\x00\x01", "is no checkpoint"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(str(tmp_path))


def test_the_model_follows_the_config_of_what_was_loaded(tmp_path):
    loaded = load_checkpoint(save_weights(tmp_path, small_weights()))
    wrong = dataclasses.replace(loaded, card=ModelCard(architecture=VitConfig(name="deit_small_patch16_224")))
    with pytest.raises(CheckpointError, match=r"do not fit deit_small_patch16_224: 1\d\d missing"):
        build_model(wrong)
    assert isinstance(build_model(loaded), VisionTransformer)


def test_weights_beside_the_vits_are_left_out_on_request(tmp_path):
    path = save_weights(
        tmp_path, {**small_weights(), "decoder.weight": torch.zeros(2, 2), "temperature": torch.ones(1)}
    )
    with pytest.raises(CheckpointError, match=r"2 unexpected \(decoder\.weight, temperature\).*--ignore-extra"):
        load_model(path)
    model, loaded = load_model(path, ignore_extra=True)
    assert model.config == SMALL
    assert "left out, since they are no part of the ViT: decoder.weight, temperature" in loaded.notes


@pytest.mark.parametrize("name", ["blocks.0.adapter.weight", "norm.scale", "patch_embed.extra"])
def test_weights_inside_the_vit_are_never_left_out(tmp_path, name):
    path = save_weights(tmp_path, {**small_weights(), name: torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"unexpected") as caught:
        load_model(path)
    assert "--ignore-extra" not in str(caught.value)
    with pytest.raises(CheckpointError, match=f"cannot leave out {name}: they change what the model computes"):
        load_checkpoint(path, ignore_extra=True)


def test_a_head_that_is_left_out_is_said_to_be_missing(tmp_path):
    weights = small_weights()
    held = {name.replace("head.", "head.0."): tensor for name, tensor in weights.items()}
    model, loaded = load_model(save_weights(tmp_path, held), ignore_extra=True)
    assert model.config.num_classes == 0
    assert any("it has no 'head', so its features are put out" in note for note in loaded.notes)


@pytest.mark.parametrize("own", [False, True], ids=["foreign", "own"])
def test_positions_can_be_resized_as_the_official_deit_and_evit_do(tmp_path, own):
    model, path = small_model(), tmp_path / "a.pt"
    if own:
        save_checkpoint(path, model)
    else:
        torch.save(model.state_dict(), path)
    resized, loaded = load_model(path, image_size=24, assume=["pos_embed_resize=bicubic"])
    # deit's main.py and evit's evit.py
    position = model.pos_embed.detach()
    grid = position[:, 1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    official = torch.nn.functional.interpolate(grid, size=(3, 3), mode="bicubic", align_corners=False)
    expected = torch.cat([position[:, :1], official.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    torch.testing.assert_close(resized.pos_embed, expected, rtol=0, atol=0)
    entry = {one.key: (one.value, one.why) for one in loaded.card.assumptions}
    assert entry["pos_embed_resize"] == ("bicubic", "--assume")
    usual, told = load_model(path, image_size=24)
    assert {one.key: one.value for one in told.card.assumptions}["pos_embed_resize"] == "bicubic_antialias"
    assert (usual.pos_embed - expected).abs().max() > 1e-3


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pth.tar"])
def test_the_suffixes_that_people_use(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"epoch": 3, "state_dict": {f"model.{name}": tensor for name, tensor in small_weights().items()}}, path)
    assert load_checkpoint(path).config == SMALL
    assert backend_for(path).name == "pytorch"


def test_a_tar_archive_is_named(tmp_path):
    with tarfile.open(tmp_path / "model.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    with pytest.raises(CheckpointError, match="is a tar archive, not a checkpoint. Unpack it first"):
        load_checkpoint(tmp_path / "model.pth.tar")


def test_official_names_of_deit_three_are_asked_about(tmp_path, monkeypatch):
    official = {
        name.replace("ls1.gamma", "gamma_1"): tensor for name, tensor in small_weights(layer_scale=True).items()
    }
    seen = []
    monkeypatch.setattr(checkpoint, "infer", lambda *_, official_names, **__: seen.append(official_names) or 1 / 0)
    for weights in (official, small_weights(layer_scale=True)):
        with pytest.raises(ZeroDivisionError):
            load_checkpoint(save_weights(tmp_path, weights))
    assert seen == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 10**8}, "architecture.vit.depth: Input should be less than or equal to 512"),
        ({"depth": 300}, "its description says that depth is 300, its weights that it is 2"),
        ({"width": 128}, "its description says that width is 128, its weights that it is 64"),
        ({"num_classes": 10**7}, "num_classes is 10000000, its weights that it is 5"),
        ({"image_size": [8192, 8192]}, "17 entries: none for 1024 x 1024 patches"),
        ({"image_size": [10**6, 10**6]}, "image_size.0: Input should be less than or equal to 16384"),
    ],
)
def test_a_description_is_believed_only_where_the_weights_bear_it_out(tmp_path, changes, message):
    save_checkpoint(tmp_path / "a.pt", small_model())
    held = torch.load(tmp_path / "a.pt", weights_only=True)
    held["card"]["architecture"].update(changes)
    if "image_size" in changes:
        held["card"]["preprocessing"]["image_size"] = changes["image_size"]
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "a.pt")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_a_document_nested_beyond_measure_is_damaged(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small_model())
    with safe_open(path, framework="pt") as stream:
        weights = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    save_file(weights, path, metadata={"tmdeploy": '{"format": ' + "[" * 200_000 + "]" * 200_000 + "}"})
    with pytest.raises(CheckpointError, match="its tmdeploy description is no JSON object"):
        load_checkpoint(path)
