"""The package of docs/guide/extending.md, extracted and used: methods of each kind, a format, a backend, a pass."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import tmdeploy
from tests.cli.running import run
from tests.distributions import write_guide
from tests.export.exporting import save_tiny
from tests.vits import tiny_images, tiny_vit
from tmdeploy import doctor
from tmdeploy.backends import BACKENDS, backend_for, open_runner
from tmdeploy.errors import ArtifactError, CheckpointError, UnsupportedModel, UsageError
from tmdeploy.graph.registered import PASSES
from tmdeploy.methods import METHODS, MethodSpec, method
from tmdeploy.methods.none import NoneOptions
from tmdeploy.methods.spec import CustomSignal, Leftover, Select
from tmdeploy.models.checkpoint import load_model, save_checkpoint
from tmdeploy.models.formats import FORMATS
from tmdeploy.patching import reduction_of

TABLES = (METHODS, BACKENDS, FORMATS, PASSES)


@pytest.fixture(autouse=True, scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(write_guide(tmp_path_factory.mktemp("installed") / "guide"))
        for table in TABLES:
            table.forget()
        yield
    for table in TABLES:
        table.forget()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """With a learned part in each of its two blocks."""
    return tmdeploy.patch(tiny_vit(depth=2), "predictor", layers=[0, 1])


@pytest.fixture(scope="module")
def checkpoint(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bare weights in the format of the guide."""
    path = tmp_path_factory.mktemp("weights") / "model.npz"
    np.savez(path, **{name: weight.numpy() for name, weight in model.state_dict().items()})
    return path


def _result(text: str) -> dict:
    return json.loads(text)


def test_they_are_listed(capsys: pytest.CaptureFixture[str]):
    listed = {row["name"]: row for row in _result(run(capsys, "methods", "--json", "-").out)["methods"]}
    assert {"twins", "outliers", "predictor", "embedding"} <= set(listed)
    assert (listed["twins"]["schedule"], listed["predictor"]["schedule"]) == ("r", "keep")
    assert listed["predictor"]["options"][0]["default"] == 16
    (state,) = doctor._extensions()
    assert (state.name, state.works, state.detail) == (
        "onnxruntime-plain",
        True,
        "ONNX Runtime that optimises nothing",
    )
    assert [one.name for one in PASSES] == ["share-weights"]


def test_from_a_checkpoint_of_its_format_to_a_backend_of_its_own(
    checkpoint: Path, model: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Export reads the npz and the predictor's weights, runs the pass, and proves the file; the backend runs it."""
    output = tmp_path / "model.onnx"
    chosen = ("--method", "predictor", "--layers", "0,1", "--num-heads", 3)
    done = run(capsys, "export", checkpoint, "-o", output, *chosen, "--pass", "share-weights")
    assert done.code == 0, done.err
    assert "share-weights: equal weights became one" in done.err
    weights = [onnx.numpy_helper.to_array(one) for one in onnx.load(output).graph.initializer]
    assert len({(one.dtype, one.shape, one.tobytes()) for one in weights}) == len(weights)
    images = tiny_images()
    with open_runner(output, backend="onnxruntime-plain") as plain, open_runner(output) as usual, torch.no_grad():
        np.testing.assert_allclose(plain.infer(images.numpy()), model(images).numpy(), atol=1e-4)
        ours, theirs = (one.trace(images.numpy(), (5, 3), tensors=True) for one in (usual, plain))
        assert [step.x_out.shape[1] for step in theirs.steps] == [7, 5]  # class token, kept, fused
        for mine, other in zip(ours.steps, theirs.steps, strict=True):
            np.testing.assert_array_equal(mine.map, other.map)
    judged = run(capsys, "validate", checkpoint, output, "--num-heads", 3, "--backend", "onnxruntime-plain")
    assert judged.code == 0, judged.err
    assert "onnxruntime-plain" in judged.out


def test_weights_of_a_method_ask_for_it(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export = ("export", checkpoint, "-o", tmp_path / "x.onnx", "--num-heads", 3, "--no-verify")
    refused = run(capsys, *export, "--method", "tome")
    assert refused.code == 4
    assert "16 unexpected (score_predictor.0.norm.weight" in refused.err
    assert refused.err.endswith("weights of a reduction method: export it with --method predictor.\n")
    refused = run(capsys, *export, "--method", "predictor", "--layers", "0,1", "-O", "hidden=8")
    assert "do not fit the part score_predictor.0 of method 'predictor': 5 mis-shaped" in refused.err
    refused = run(capsys, *export, "--method", "predictor", "--layers", "0")
    assert "has weights of method 'predictor' for more steps than 1 (score_predictor.1.norm.weight)" in refused.err
    refused = run(capsys, *export, "--method", "predictor", "--layers", "0,1", "--pass", "share-weight")
    assert "no graph pass 'share-weight'. Installed are: share-weights" in refused.err


def test_a_checkpoint_without_the_methods_weights_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path / "plain.pt", tiny_vit(depth=2))
    recipe = reduction_of(tmdeploy.patch(tiny_vit(depth=2), "embedding", r=3)).recipe
    with pytest.raises(CheckpointError, match=r"plain\.pt: the weights do not fit the part blocks\.0\.attn\.metric_"):
        open_runner(tmp_path / "plain.pt", recipe=recipe)


def test_saved_with_its_recipe_or_not_at_all(model: torch.nn.Module, tmp_path: Path):
    with pytest.raises(UsageError, match=r"the model's method has weights \(score_predictor\.0\.local\.bias,.*recipe="):
        save_checkpoint(tmp_path / "model.pt", model)
    path = save_tiny(model, tmp_path)
    plain, loaded = load_model(path)  # whoever wants the ViT alone gets it
    assert len(loaded.parts) == 16
    assert not [name for name in plain.state_dict() if name.startswith("score_predictor")]


def test_parts_that_a_model_brings_are_used():
    """A module that was trained elsewhere has its predictors already, of a class of its own."""
    trained = tmdeploy.patch(tiny_vit(depth=2), "predictor", layers=[0, 1])
    bare = tiny_vit(depth=2)
    bare.score_predictor = torch.nn.ModuleList(_foreign(part) for part in reduction_of(trained).parts.values())
    with torch.no_grad():
        patched = tmdeploy.patch(bare, "predictor", layers=[0, 1])
        torch.testing.assert_close(patched(tiny_images()), trained(tiny_images()))
    tmdeploy.patching.unpatch(bare)
    assert type(bare.score_predictor[0]) is torch.nn.Module


def _foreign(part: torch.nn.Module) -> torch.nn.Module:
    """The same weights under the same names, in a module of another class."""
    made = torch.nn.Module()
    for name, child in part.named_children():
        made.add_module(name, child)
    return made


def test_a_format_that_is_only_read(tmp_path: Path):
    with pytest.raises(UsageError, match="checkpoints of format npz are only read"):
        save_checkpoint(tmp_path / "model.npz", tiny_vit(depth=2))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ArtifactError, match=r"broken\.npz: cannot be read as a checkpoint of format npz \("):
        load_model(tmp_path / "broken.npz")
    assert backend_for(tmp_path / "model.npz").name == "pytorch"


def test_a_backend_that_opens_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import vit_extras.plain

    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setattr(vit_extras.plain, "open_runner", lambda path, threads: "nothing")
    with pytest.raises(tmdeploy.errors.EnvironmentMissing, match="onnxruntime-plain opens files as str"):
        open_runner(tmp_path / "model.onnx", backend="onnxruntime-plain")


class Wrong(torch.nn.Module):
    def __init__(self, sizes: object) -> None:
        super().__init__()

    def forward(self, tokens: torch.Tensor, attention: object) -> torch.Tensor:
        return tokens


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (CustomSignal("vit_extras.signals:nothing"), r"vit_extras\.signals:nothing, which cannot be imported"),
        (
            CustomSignal("tests.test_guide:Wrong", weights="wrong.{step}"),
            r"returns \[1, 65, 48\] for .*a score \[batch",
        ),
        (CustomSignal("builtins:repr", weights="wrong.{step}"), "makes a str. Let it return an nn.Module"),
    ],
    ids=["missing", "shape", "no module"],
)
def test_a_signal_that_is_none(signal: CustomSignal, message: str):
    @method("wrong", summary="", source="", options=NoneOptions)
    def wrong(_: object) -> MethodSpec:
        return MethodSpec("wrong", planner=Select(signal, Leftover.DROP, order="score"), default_layers=(0,))

    METHODS.add(wrong)
    model = tiny_vit(depth=2)
    names = list(model.state_dict())
    try:
        with pytest.raises(UnsupportedModel, match=message):
            tmdeploy.patch(model, "wrong", keep=0.5)
    finally:
        del METHODS._added["wrong"]
    assert list(model.state_dict()) == names
