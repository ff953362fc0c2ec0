"""`--against`: the owner's model beside ours, before the file gets its name."""

import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tmdeploy
from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.export.exporting import save_tiny
from tests.vits import tiny_images, tiny_vit
from tmdeploy.card.card import ProofRecord
from tmdeploy.errors import DataError, EnvironmentMissing, ExportError, UsageError
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.export.against import prove
from tmdeploy.inspection import inspect_onnx
from tmdeploy.models.checkpoint import build_model, load_checkpoint
from tmdeploy.models.vit import VisionTransformer

MODEL = tiny_vit()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny(tmdeploy.patch(tiny_vit(), "tome", r=8), tmp_path)


def _export(checkpoint: Path, against: object, **request: object):
    request.setdefault("verify", False)
    output = checkpoint.with_name("out.onnx")
    return export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, against=against, **request))


def _prove(checkpoint: Path, against: object, *, method: str | None = None, num_heads: int | None = None):
    """What `_export` does before it writes anything."""
    loaded = load_checkpoint(checkpoint, num_heads=num_heads)
    module = tmdeploy.patch(build_model(loaded), method or loaded.card.recipe)
    return prove(against, module, loaded, originals=lambda: torch.load(checkpoint, weights_only=True))


def _bare() -> VisionTransformer:
    return VisionTransformer(MODEL.config)


def _other(**changes: object) -> VisionTransformer:
    model = VisionTransformer(MODEL.config.replace(**changes))
    model.load_state_dict(MODEL.state_dict())
    return model.eval()


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        (_bare, "checkpoint"),
        (tiny_vit, "own"),
        (MODEL, "own"),
        (lambda: nn.ModuleDict({"m": _bare()})["m"], "checkpoint"),
    ],
    ids=["builder", "builder with weights", "module", "lambda"],
)
def test_whose_weights_the_owners_model_runs_with(checkpoint: Path, target: object, weights: str):
    proof = _prove(checkpoint, target)
    assert (proof.weights, proof.error <= proof.limit) == (weights, True)


@pytest.mark.parametrize("method", ["none", "evit", "topk", "mstm"])
def test_ours_removes_nothing_whatever_the_method(tmp_path: Path, method: str):
    layers = None if method == "none" else [1, 2]
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(), method, layers=layers), tmp_path)
    assert _prove(checkpoint, _bare).error < 1e-4


def test_features_of_a_model_without_a_head(tmp_path: Path):
    checkpoint = save_tiny(tmdeploy.patch(tiny_vit(num_classes=0), "tome", r=8), tmp_path)
    proof = _prove(checkpoint, lambda: tiny_vit(num_classes=0))
    assert (proof.top1_differing, proof.error <= proof.limit) == (None, True)

    class Tokens(nn.Module):
        """As DINO's and MAE's forward_features: all tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.vit = tiny_vit(num_classes=0)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.vit.norm(self.vit.blocks(self.vit.embed(images)))

    assert _prove(checkpoint, Tokens).error < 1e-4


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"act": "quick_gelu"}, "act=quick_gelu"),
        ({"norm_eps": 1e-5}, "norm_eps=1e-05"),
        ({"heads": 1}, "heads=1"),
        ({"pool": "avg"}, "pool=avg"),
        ({"norm_placement": "res_post"}, "norm_placement=res_post"),
        ({"act": "quick_gelu", "heads": 1}, "act=quick_gelu --assume heads=1"),
    ],
    ids=str,
)
def test_a_wrong_assumption_is_refused_and_found(checkpoint: Path, changes: dict, remedy: str):
    with pytest.raises(ExportError, match=r"does not compute what your module .* largest error") as caught:
        _export(checkpoint, lambda: VisionTransformer(MODEL.config.replace(**changes)))
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 4
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["tiny.pt"]


def test_other_weights_than_the_checkpoints_are_refused(checkpoint: Path):
    """A builder that loads the EMA copy: its weights are not overwritten, or the proof would hide which were read."""

    def averaged() -> nn.Module:
        model = tiny_vit()
        with torch.no_grad():
            model.head.weight.mul_(1.01)
        return model

    with pytest.raises(ExportError, match=r"\(with the weights it brought\).*has other weights than the checkpoint"):
        _export(checkpoint, averaged)


class _Constant(nn.Module):
    """A head of zeros: right for every model with these outputs."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 10), self.value)


class _Raises(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such layer")


def _no_model() -> int:
    return 5


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (_Constant(0.0), ExportError, "outputs are the same for every image"),
        (_Constant(float("nan")), ExportError, "values that are not finite"),
        (_Raises(), ExportError, r"cannot run on images \[4, 3, 64, 64\] \(ValueError: no such layer\)"),
        (nn.Flatten(), ExportError, r"returns \[12288\] values an image, our model \[10\]"),
        (lambda: nn.Linear(3, 3), ExportError, r"do not fit the module: 2 missing \(weight, bias\); \d+ unexpected"),
        (_no_model, UsageError, r"returns int, no torch\.nn\.Module"),
    ],
    ids=["constant", "nan", "raises", "shape", "names", "no module"],
)
def test_what_cannot_prove_anything_is_refused(checkpoint: Path, target: object, error: type, message: str):
    with pytest.raises(error, match=message):
        _export(checkpoint, target)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["tiny.pt"]


def test_the_owners_module_is_left_as_it_was(checkpoint: Path):
    model = tiny_vit().train().half()
    with pytest.raises(ExportError, match="does not compute"):  # rounded weights
        _export(checkpoint, model)
    assert model.training
    assert next(model.parameters()).dtype == torch.float16


def test_wrapped_and_originally_named_weights_fit(tmp_path: Path):
    """A module that wraps the ViT, and one with the names of the file instead of timm's."""
    model = tiny_vit(layer_scale=True)
    checkpoint = tmp_path / "official.pt"

    def renamed(name: str) -> str:
        return name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")

    torch.save({renamed(name): tensor for name, tensor in model.state_dict().items()}, checkpoint)

    class Official(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = VisionTransformer(model.config)

        def state_dict(self) -> dict[str, torch.Tensor]:
            return {renamed(name): tensor for name, tensor in self.vit.state_dict().items()}

        def load_state_dict(self, weights: dict[str, torch.Tensor], strict: bool = True) -> None:
            back = {
                name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): weights[name] for name in weights
            }
            self.vit.load_state_dict(back, strict=strict)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.vit(images)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = VisionTransformer(model.config)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.backbone(images)}

    for owner in (Official, Wrapped):
        proof = _prove(checkpoint, owner, method="tome", num_heads=3)
        assert (proof.weights, proof.error <= proof.limit) == ("checkpoint", True)


# The command line: names, the current directory, what the user's code prints

_USERS = """
from tests.export.test_against import _bare as build
print("code of the user's")
def other():
    from tests.export.test_against import MODEL
    from tmdeploy.models.vit import VisionTransformer
    return VisionTransformer(MODEL.config.replace(act="relu"))
number = 5
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users_model.py").write_text(_USERS)
    (tmp_path / "users_script.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n")
    (tmp_path / "users_needs.py").write_text("import no_such_package_of_theirs\n")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "this.py").write_text("build = None  # stands in for nothing that is installed\n")
    before = list(sys.path)
    yield checkpoint
    assert sys.path == before
    for name in [name for name in sys.modules if name.startswith("users_")]:
        del sys.modules[name]


def test_a_module_of_the_current_directory_and_what_the_file_says(user: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--precision", "fp16", "--verify-data", EXAMPLES / "digits", "--no-verify", "--json", "-")
    done = run(capsys, "export", user, "-o", "x.onnx", "--against", "users_model:build", *options)
    assert done.code == 0
    document = json.loads(done.out)  # JSON alone
    assert "code of the user's" in done.err
    assert document["proved_against"].startswith("your module users_model:build, unmerged: 24 normalised images, error")
    proof = inspect_onnx(Path("x.onnx")).card.proof
    assert proof == ProofRecord.model_validate(document["metadata"]["card"]["proof"])
    assert (proof.kind, proof.weights, proof.images, proof.top1_differing) == ("module", "checkpoint", 24, 0)
    assert proof.error <= proof.limit < 1e-2  # in float32: the file's precision is another matter
    assert "users_model:build" in run(capsys, "inspect", "x.onnx").out


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("users_model:other", 4, "--assume act=relu"),
        ("users_model:nothing", 2, "has no 'nothing'. Name a module, or a callable"),
        ("users_model:number", 2, "is of type int, neither a module nor a callable"),
        ("users_script:build", 4, "importing users_script failed (SystemExit: 2)"),
        ("users_needs:build", 4, "importing users_needs failed (ModuleNotFoundError: No module named 'no_such_package"),
        ("this:build", 2, "python3"),  # the one of the standard library
        ("users_none:build", 2, "there is no module 'users_none'. Run from the folder it is in"),
        ("users_model", 2, "names no model. Give a module as pkg.mod:build, timm:NAME"),
        ("timm:no_such_vit", 4, "timm cannot build it (RuntimeError: Unknown model"),
        ("timm:hf-hub:somebody/theirs", 2, "is no architecture of timm's"),
        ("timm:vit_tiny_patch16_224", 4, "the checkpoint's weights do not fit the module"),
        ("transformers:nowhere", 2, "there is no folder 'nowhere'"),
        ("nowhere.npz", 4, "nowhere.npz: no such file"),
        ("folder.npz", 4, "folder.npz: is no regular file"),
    ],
)
def test_bad_targets_are_one_line(
    user: Path, target: str, code: int, message: str, capsys: pytest.CaptureFixture[str], timm: object
):
    done = run(capsys, "export", user, "-o", "x.onnx", "--against", target)
    assert (done.code, message in done.err) == (code, True), done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert not Path("x.onnx").exists()


def test_timm_by_name(tmp_path: Path, timm: object):
    """A small checkpoint of a timm architecture: timm builds it, the checkpoint's weights go in."""
    import timm as library

    torch.manual_seed(0)
    model = library.create_model("test_vit", num_classes=7)
    with torch.no_grad():
        model.head.weight.normal_(std=0.02)
    checkpoint = tmp_path / "timm.pth"
    torch.save(model.state_dict(), checkpoint)
    proof = _prove(checkpoint, "timm:test_vit", method="tome", num_heads=model.blocks[0].attn.num_heads)
    assert (proof.kind, proof.weights, proof.error <= proof.limit) == ("timm", "checkpoint", True)


def test_timm_that_does_not_import_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentMissing, match="timm"):
        _export(checkpoint, "timm:vit_tiny_patch16_224")


class _Output:
    """As transformers': fields instead of a tensor."""

    def __init__(self, **fields: torch.Tensor) -> None:
        vars(self).update(fields)


class _Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vit = tiny_vit()

    def forward(self, pixel_values: torch.Tensor) -> _Output:
        return _Output(logits=self.vit(pixel_values))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vit = tiny_vit(num_classes=0)

    def forward(self, pixel_values: torch.Tensor) -> _Output:
        tokens = self.vit.norm(self.vit.blocks(self.vit.embed(pixel_values)))
        return _Output(last_hidden_state=tokens, pooler_output=tokens[:, 0].tanh())


def _auto(model: type[nn.Module]) -> SimpleNamespace:
    def from_pretrained(folder: str, *, local_files_only: bool, trust_remote_code: bool) -> nn.Module:
        assert (local_files_only, trust_remote_code) == (True, False)
        return model()

    return SimpleNamespace(from_pretrained=from_pretrained)


@pytest.mark.parametrize("classes", [10, 0])
def test_a_folder_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int):
    library = ModuleType("transformers")
    library.AutoModelForImageClassification, library.AutoModel = _auto(_Classifier), _auto(_Encoder)
    monkeypatch.setitem(sys.modules, "transformers", library)
    checkpoint = tmp_path / "plain.pth"
    torch.save(tiny_vit(num_classes=classes).state_dict(), checkpoint)
    proof = _prove(checkpoint, f"transformers:{tmp_path}", method="tome", num_heads=3)
    assert (proof.kind, proof.weights, proof.error <= proof.limit) == ("transformers", "own", True)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    with pytest.raises(ExportError, match="it states mean 0.1,0.2,0.3 of its input, 0.485,0.456,0.406 was assumed"):
        _prove(checkpoint, f"transformers:{tmp_path}", method="tome", num_heads=3)


# Saved outputs


def _save(path: Path, images: np.ndarray, logits: np.ndarray | None = None) -> Path:
    if logits is None:
        with torch.no_grad():
            logits = MODEL(torch.from_numpy(images)).numpy()
    np.savez(path, images=images, logits=logits)
    return path


def test_saved_outputs_prove_it(checkpoint: Path):
    saved = _save(checkpoint.with_name("outputs.npz"), tiny_images(5).numpy())
    proof = _prove(checkpoint, saved)
    assert (proof.kind, proof.name, proof.images, proof.normalisation) == ("outputs", "outputs.npz", 5, False)
    assert proof.error <= proof.limit


def test_saved_pixels_prove_the_normalisation_too(checkpoint: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)

    def logits(mean: float) -> np.ndarray:
        images = torch.from_numpy(((pixels / 255.0 - mean) / 0.5).astype(np.float32)).permute(0, 3, 1, 2)
        with torch.no_grad():
            return MODEL(images).numpy()

    with pytest.raises(ExportError, match="outputs saved in outputs.npz"):  # the checkpoint says ImageNet's statistics
        _export(checkpoint, _save(checkpoint.with_name("outputs.npz"), pixels, logits(0.5)))
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    images = torch.from_numpy(((pixels / 255.0 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    right = _save(checkpoint.with_name("right.npz"), pixels, MODEL(images).detach().numpy())
    proof = _prove(checkpoint, right)
    assert proof.normalisation
    assert proof.error <= proof.limit


_IMAGES, _LOGITS = np.zeros((2, 3, 64, 64), np.float32), np.zeros((2, 10), np.float32)


def _damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("not a zip")
    else:  # a header that promises more than the file holds
        with zipfile.ZipFile(path) as archive:
            arrays = {name: archive.read(name) for name in archive.namelist()}
        shape = b"(200000000000, 10)" if how == "huge" else b"(9, 10)"
        arrays["logits.npy"] = arrays["logits.npy"].replace(
            b"(2, 10), }" + b" " * len(shape), shape + b", }" + b" " * 7
        )
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in arrays.items():
                archive.writestr(name, data)


@pytest.mark.parametrize(
    ("arrays", "damage", "message"),
    [
        ({"images": _IMAGES}, None, "has no array 'logits'; it holds images.npy"),
        ({"images": _IMAGES, "logits": np.array([{}, {}])}, None, "holds Python objects, not numbers"),
        (
            {"images": _IMAGES[:, :, :32], "logits": _LOGITS},
            None,
            r"'images' is float32 \[2, 3, 32, 64\]; the model takes",
        ),
        ({"images": _IMAGES.astype(np.int32), "logits": _LOGITS}, None, "'images' is int32"),
        ({"images": _IMAGES * np.nan, "logits": _LOGITS}, None, "not finite"),
        ({"images": _IMAGES[:0], "logits": _LOGITS[:0]}, None, "holds no image"),
        ({"images": _IMAGES, "logits": _LOGITS[:1]}, None, r"'logits' is float32 \[1, 10\]; for 2 images"),
        ({"images": _IMAGES, "logits": _LOGITS.astype(np.float16)}, None, "float16, too coarse"),
        ({"images": _IMAGES, "logits": _LOGITS}, "truncated", "is no .npz file, or a damaged one"),
        ({"images": _IMAGES, "logits": _LOGITS}, "text", "is no .npz file, or a damaged one"),
        ({"images": _IMAGES, "logits": _LOGITS}, "huge", "'logits' takes 7450.6 GiB. Save fewer images"),
        ({"images": _IMAGES, "logits": _LOGITS}, "longer", "'logits' is not as long as it says"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unusable_saved_outputs(checkpoint: Path, arrays: dict, damage: str | None, message: str):
    path = checkpoint.with_name("outputs.npz")
    np.savez(path, **arrays)
    if damage is not None:
        _damage(path, damage)
    with pytest.raises(DataError, match=message):
        _export(checkpoint, path)


def test_saved_outputs_are_an_input_that_nothing_overwrites(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    saved = _save(checkpoint.with_name("outputs.npz"), tiny_images(2).numpy())
    done = run(capsys, "export", checkpoint, "--against", saved, "--json", saved)
    assert done.code == 2
    assert "outputs.npz" in done.err
    assert zipfile.is_zipfile(saved)
