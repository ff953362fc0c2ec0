"""`tmdeploy.export(module, file)`, `torch.onnx.export` and `save_checkpoint` of modules that are not ours."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import tmdeploy
from tests.cli.running import run
from tests.export.exporting import open_session
from tests.vits import tiny_images, tiny_vit
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.facts import ModelFacts
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import ExportError, UnsupportedModel, UsageError
from tmdeploy.models.checkpoint import load_model, save_checkpoint
from tmdeploy.patching import reduction_of, unpatch

PIXELS = Preprocessing(image_size=(64, 64), mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))


def _timm(timm: ModuleType, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "deit_tiny_patch16_224",
        **{"depth": 3, "num_classes": 7, "embed_dim": 48, "num_heads": 3, "img_size": 64, "patch_size": 8, **changes},
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


class Mine(nn.Module):
    """Around our blocks, with a head of its own, and nothing that names its input."""

    def __init__(self) -> None:
        super().__init__()
        vit = tiny_vit()
        self.stem, self.blocks, self.cls_token, self.positions = (
            vit.patch_embed,
            vit.blocks,
            vit.cls_token,
            vit.pos_embed,
        )
        self.classifier = nn.Linear(48, 5)

    def batch(self, x: Tensor) -> int:
        return x.shape[0]

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(self.batch(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.classifier(x[:, 0])


def _run(path: Path, images: Tensor, **feeds: list[int]) -> np.ndarray:
    amounts = {name: np.array(values, dtype=np.int64) for name, values in feeds.items()}
    return open_session(path).run(None, {"images": images.numpy(), **amounts})[0]


def test_a_timm_model_that_is_of_our_family(timm: ModuleType, tmp_path: Path):
    model, images = _timm(timm).train(), tiny_images()
    tmdeploy.patch(model, "tome", r=8)
    before = [(part.training, part.__dict__.keys()) for part in model.modules()]
    result = tmdeploy.export(model, str(tmp_path / "model.onnx"), class_names=list("abcdefg"))
    assert [(part.training, part.__dict__.keys()) for part in model.modules()] == before
    with torch.no_grad():
        np.testing.assert_allclose(_run(result.path, images), model.eval()(images), atol=1e-4)
        reduction_of(model).set_schedule([0, 0, 3])
        np.testing.assert_allclose(_run(result.path, images, r=[0, 0, 3]), model(images), atol=1e-4)
    card, config = result.metadata.card, result.metadata.card.architecture
    assert isinstance(config, VitConfig)
    assert (config.heads, config.mlp_width, config.num_classes, config.grid) == (3, 192, 7, (8, 8))
    # what timm states of DeiT
    assert (card.preprocessing.mean, card.preprocessing.crop_pct) == ((0.485, 0.456, 0.406), 0.9)
    assert card.proof is not None
    assert (card.proof.kind, card.proof.name, card.proof.images) == ("module", "VisionTransformer", 3)
    assert result.verification is not None
    assert result.verification.compared == 3 * 2 * 3  # images, batch sizes, schedules

    # the same model as a checkpoint
    save_checkpoint(tmp_path / "model.pt", model, recipe=reduction_of(model).recipe)
    ours, loaded = load_model(tmp_path / "model.pt")
    assert loaded.card.preprocessing == card.preprocessing
    torch.testing.assert_close(ours(images), unpatch(model)(images), atol=1e-5, rtol=1e-5)


def test_a_module_of_the_users_own(tmp_path: Path):
    model, images = Mine(), tiny_images()
    model.num_prefix_tokens = 1
    tmdeploy.patch(model, "mstm", layers=[1, 3], options={"prop_attn": True}, check=images)
    with pytest.raises(UsageError, match=r"Mine does not say what images it takes.*Pass preprocessing="):
        tmdeploy.export(model, tmp_path / "mine.onnx")
    path = tmp_path / "mine.onnx"
    result = tmdeploy.export(
        model, path, preprocessing=PIXELS, with_preprocessing=True, extra_output=["plan", "size"], name="mine"
    )
    config = result.metadata.card.architecture
    assert isinstance(config, ModelFacts)
    assert config.model_dump() == {
        "module": f"{Mine.__module__}.Mine",
        "name": "mine",
        "image_size": (64, 64),
        "in_channels": 3,
        "tokens": 65,
        "num_prefix": 1,
        "grid": None,
        "width": 48,
        "depth": 4,
        "heads": 3,
        "num_classes": 5,
    }
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    normal = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(PIXELS.mean)[:, None, None]) / 0.5
    with torch.no_grad():
        np.testing.assert_allclose(_run(path, pixels), model(normal), atol=1e-4)
    with pytest.raises(UsageError, match="a checkpoint cannot describe this Mine.*tmdeploy.export"):
        save_checkpoint(tmp_path / "mine.pt", model)
    with pytest.raises(UsageError, match="2 class names for 5 classes"):
        tmdeploy.export(model, path, preprocessing=PIXELS, class_names=["a", "b"])
    with pytest.raises(UsageError, match="Mine has no `head`"):
        tmdeploy.export(model, path, preprocessing=PIXELS, extra_output=["features"])


def test_a_model_of_ours_with_other_parts_is_no_checkpoint(tmp_path: Path):
    model = tiny_vit(depth=2)
    model.blocks[1].mlp.act = nn.Hardswish()
    save_checkpoint(tmp_path / "same.pt", tiny_vit(depth=2))
    with pytest.raises(UsageError, match="a checkpoint cannot describe this VisionTransformer"):
        save_checkpoint(tmp_path / "other.pt", tmdeploy.patch(model, "tome", r=4))
    model.blocks[1].mlp.act = nn.GELU()
    model.blocks[1].mlp.forward = lambda x: x
    with pytest.raises(UsageError, match="a checkpoint cannot describe this VisionTransformer"):
        save_checkpoint(tmp_path / "other.pt", model)


def test_every_command_takes_the_file(timm: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    model = tmdeploy.patch(_timm(timm, qk_norm=True), "topk", layers=[1, 2])
    path = tmp_path / "qk.onnx"
    assert isinstance(tmdeploy.export(model, path).metadata.card.architecture, ModelFacts)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(photo)
    for command, said in (
        (["inspect", path], "its MACs are not known"),
        (["infer", path, photo], "photo.png"),
        (["visualize", path, photo, "-o", tmp_path / "drawn"], "wrote"),
        (["validate", path, path, "--random", "2"], "PASSED"),
        (["bench", path, "--rounds", "3", "--no-memory"], "qk"),
    ):
        result = run(capsys, *command)
        assert result.code == 0, (command, result)
        assert said in " ".join((result.out + result.err).split()), (command, result)


def test_what_a_module_cannot_be_exported_for(timm: ModuleType, tmp_path: Path):
    path = tmp_path / "model.onnx"
    with pytest.raises(UnsupportedModel, match=r"not patched.*tmdeploy\.patch"):
        tmdeploy.export(tiny_vit(), path)
    model = tmdeploy.patch(tiny_vit(), "none")
    with pytest.raises(UsageError, match="does not say how images become its input"):
        tmdeploy.export(model, path)
    fixed = Mine()
    fixed.num_prefix_tokens, fixed.batch = 1, len
    tmdeploy.patch(fixed, "tome", r=2, check=tiny_images())
    with pytest.raises(ExportError, match=r"fixes the batch size, as len\(x\) does.*--static-batch"):
        tmdeploy.export(fixed, path, preprocessing=PIXELS)
    dense = tmdeploy.patch(_timm(timm, global_pool="", num_classes=0), "tome", r=2)
    with pytest.raises(UnsupportedModel, match=r"returns a Tensor \[3, 65, 48\], not one tensor \[batch, classes\]"):
        tmdeploy.export(dense, path)
    wrong = tiny_vit()
    wrong.blocks[1].attn.register_buffer("temperature", torch.tensor(3.0))
    plain = wrong.blocks[1].attn.forward
    wrong.blocks[1].attn.forward = lambda x: 3 * plain(x)
    tmdeploy.patch(wrong, "tome", r=2, check=False)
    with pytest.raises(ExportError, match="patched, does not compute what it computed before"):
        tmdeploy.export(wrong, path, preprocessing=PIXELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["tome", "evit", "mstm"])
def test_torchs_own_exporter_writes_standard_ops(method: str, tmp_path: Path):
    model = tmdeploy.patch(tiny_vit(depth=2), method, layers=[0, 1])
    program = torch.onnx.export(
        model, (tiny_images(2),), dynamo=True, verbose=False, dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
    )
    program.save(tmp_path / "plain.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    images = tiny_images(5)
    (got,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(got, model(images).detach(), atol=1e-4)
