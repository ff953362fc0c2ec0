import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import tmdeploy
from tests.export.exporting import export_module, save_tiny
from tests.vits import tiny_images, tiny_vit
from tmdeploy.card.metadata import METADATA_KEY, parse
from tmdeploy.errors import ArtifactError, ExportError, UsageError
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.methods import build_method
from tmdeploy.patching import reduction_of


def _patched(name: str, seed: int = 0, **changes: object):
    chosen = {"r": {"r": 8}, "keep": {"layers": [1, 2]}, None: {}}[build_method(name).schedule_kind]
    return tmdeploy.patch(tiny_vit(seed, **changes), name, **chosen)


def _reference(model, images: torch.Tensor, amounts=None) -> np.ndarray:
    state = reduction_of(model)
    state.set_schedule(amounts or state.recipe.amounts)
    with torch.no_grad():
        return model(images).numpy()


@pytest.mark.parametrize("name", ["tome", "evit", "mstm"])
@pytest.mark.parametrize("request_", [{"lowering": "portable"}, {"dynamic_batch": False}])
def test_other_forms_compute_the_same(name: str, request_: dict, tmp_path: Path):
    model = _patched(name)
    session = export_module(model, tmp_path, **request_)
    images = tiny_images(3 if request_.get("dynamic_batch", True) else 1)
    (got,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(got, _reference(model, images), atol=1e-4)
    graph = onnx.load(tmp_path / "tiny.onnx")
    custom = [node for node in graph.graph.node if node.domain == "tmdeploy"]
    assert bool(custom) == bool(graph.functions) == (request_.get("lowering") != "portable")
    overridable = [entry.name for entry in session.get_overridable_initializers()]
    assert overridable


@pytest.mark.parametrize("opset", [18, 19, 21, 22, 23])
def test_every_opset(opset: int, tmp_path: Path):
    model = _patched("tome")
    session = export_module(model, tmp_path, opset=opset)
    images = tiny_images()
    (got,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(got, _reference(model, images), atol=1e-4)
    versions = {entry.domain: entry.version for entry in onnx.load(tmp_path / "tiny.onnx").opset_import}
    assert versions[""] == opset


@pytest.mark.parametrize(
    "changes",
    [
        {"distilled": True},
        {"registers": 4},
        {"layer_scale": True},
        {"pool": "avg", "fc_norm": True},
        {"pool": "avg", "fc_norm": True, "class_token": False},
        {"scales": (16,)},
        {"scales": (16, 32), "fusion": "concat"},
        {"num_classes": 0},
        {"image_size": (48, 80)},
    ],
    ids=str,
)
def test_every_kind_of_vit(changes: dict, tmp_path: Path):
    model = _patched("tome", **changes)
    height, width = changes.get("image_size", (64, 64))
    images = torch.randn(2, 3, height, width)
    session = export_module(model, tmp_path)
    (got,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(got, _reference(model, images), atol=1e-4)
    assert session.get_outputs()[0].name == ("features" if changes.get("num_classes") == 0 else "logits")


def test_extra_outputs_and_names(tmp_path: Path):
    model = _patched("tome")
    session = export_module(model, tmp_path, outputs=("plan", "size", "features"))
    images = tiny_images()
    names = [entry.name for entry in session.get_outputs()]
    assert names[:2] == ["logits", "features"]
    outputs = dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))
    state = reduction_of(model)
    state.record = True
    _reference(model, images)
    for step in state.steps:
        np.testing.assert_array_equal(outputs[f"block{step.block}/map"], step.map.numpy())
        np.testing.assert_array_equal(outputs[f"block{step.block}/index"], step.index.numpy())
    np.testing.assert_array_equal(outputs["size"], state.size.numpy())
    head = model.head
    np.testing.assert_allclose(
        outputs["logits"], head(torch.from_numpy(outputs["features"])).detach().numpy(), atol=1e-4
    )


def test_step_tensors_are_in_the_graph_under_their_recorded_names(tmp_path: Path):
    for name in ("tome", "evit", "mstm"):
        for lowering in ("custom", "portable"):
            export_module(_patched(name), tmp_path, lowering=lowering)
            proto = onnx.load(tmp_path / "tiny.onnx")
            metadata = parse(_metadata(proto), path="tiny.onnx")
            present = {output for node in proto.graph.node for output in node.output}
            assert [step.block for step in metadata.steps] == list(metadata.card.reduction.layers)
            for step in metadata.steps:
                recorded = step.model_dump()
                for key in ("map", "index", "signal", "metric", "x_in", "x_out", "size_in", "size_out"):
                    assert recorded[key] is None or recorded[key] in present, (name, lowering, key)


def test_preprocessing_in_the_graph(tmp_path: Path):
    model = _patched("tome")
    session = export_module(model, tmp_path, with_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    (got,) = session.run(None, {"images": pixels})
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    images = torch.from_numpy(((pixels / 255.0 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(got, _reference(model, images), atol=1e-4)


def test_fp16_keeps_planners_and_sizes_in_fp32(tmp_path: Path):
    model = _patched("tome")
    images = tiny_images()
    expected = _reference(model, images)
    session = export_module(model, tmp_path, precision="fp16")
    (got,) = session.run(None, {"images": images.numpy()})
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
    proto = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "tiny.onnx"))
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    for node in proto.graph.node:
        if node.op_type == "TokenMatch":
            assert types[node.input[0]] == onnx.TensorProto.FLOAT
        if node.op_type == "TokenReduce":
            assert types[node.input[0]] == onnx.TensorProto.FLOAT16
            assert types[node.input[3]] == onnx.TensorProto.FLOAT
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in proto.graph.initializer)


def test_metadata_describes_the_file(tmp_path: Path):
    export_module(_patched("evit"), tmp_path, opset=19)
    proto = onnx.load(tmp_path / "tiny.onnx")
    metadata = parse(_metadata(proto), path="tiny.onnx")
    card, recipe = metadata.card, metadata.card.reduction
    assert recipe.method == "evit"
    assert (recipe.layers, card.schedule_kind, metadata.schedule_input) == ((1, 2), "keep", "keep")
    assert recipe.amounts == (45, 33)  # ceil(0.7 * 64), ceil(0.7 * (45 + 1))
    assert card.class_names == tuple("abcdefghij")
    assert card.source_name == "tiny.pt"
    assert (metadata.opset, card.preprocessing.image_size) == (19, (64, 64))
    assert [(step.tokens_in, step.tokens_out) for step in metadata.steps] == [(65, 47), (47, 35)]
    text = json.dumps([(entry.key, entry.value) for node in proto.graph.node for entry in node.metadata_props])
    assert text == "[]"  # no stack traces with paths of this machine
    assert str(Path.home()) not in _metadata(proto)


def test_command_line_overrides_the_checkpoints_recipe(tmp_path: Path):
    checkpoint = save_tiny(_patched("tome"), tmp_path)
    output = tmp_path / "out.onnx"
    request = {"checkpoint": checkpoint, "output": output, "verify": False}
    result = export_checkpoint(ExportRequest(**request, r="4:0"))
    assert result.metadata.card.reduction.amounts == (4, 2, 1, 0)
    result = export_checkpoint(ExportRequest(**request, method="none"))
    assert (result.metadata.card.reduction.method, result.metadata.steps) == ("none", ())
    with pytest.raises(UsageError, match="takes no --keep"):
        export_checkpoint(ExportRequest(**request, keep="0.5"))


def test_python_takes_numbers_and_paths_as_text(tmp_path: Path):
    request = {"checkpoint": str(save_tiny(_patched("none"), tmp_path)), "output": str(tmp_path / "out.onnx")}
    for typed, given in (
        ({"method": "tome", "r": "8"}, {"method": "tome", "r": 8}),
        ({"method": "tome", "r": "0"}, {"method": "tome", "r": 0}),
        ({"method": "tome", "layers": "1,3", "r": "8,4"}, {"method": "tome", "layers": [1, 3], "r": np.array([8, 4])}),
        ({"method": "evit", "layers": "1,3", "keep": "0.7"}, {"method": "evit", "layers": (1, 3), "keep": 0.7}),
        ({"method": "topk", "layers": "2", "keep": "20"}, {"method": "topk", "layers": range(2, 3), "keep": [20]}),
    ):
        ours, theirs = (export_checkpoint(ExportRequest(**request, **how, verify=False)) for how in (given, typed))
        assert ours.metadata.card.recipe == theirs.metadata.card.recipe
    assert ours.path == tmp_path / "out.onnx"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"r": "-1"}, UsageError, "cannot be negative"),
        ({"method": "toem"}, UsageError, "Did you mean 'tome'"),
        ({"opset": 17}, UsageError, "--opset 17: supported are 18 to 23"),
        ({"outputs": ("plans",)}, UsageError, "unknown output 'plans'. Choose from: plan, size, features"),
        ({"method": "evit", "layers": "1", "outputs": ("size",)}, UsageError, "sizes. Leave out --extra-output size."),
        ({"method": "none", "outputs": ("plan",)}, UsageError, "no reduction step"),
        ({"output": Path("x.plan")}, UsageError, r"x\.plan: the output is an ONNX file"),
        ({"output": Path("/no/such/folder/x.onnx")}, ArtifactError, "cannot be written"),
    ],
    ids=str,
)
def test_bad_requests_leave_no_file(changes: dict, error: type, message: str, tmp_path: Path):
    checkpoint = save_tiny(_patched("tome"), tmp_path)
    arguments = {"checkpoint": checkpoint, "output": tmp_path / "out.onnx", "verify": False, **changes}
    with pytest.raises(error, match=message):
        export_checkpoint(ExportRequest(**arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]


def test_refused_graph_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("no such op")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match=r"tiny\.onnx: the ONNX checker refuses the graph \(no such op\)"):
        export_module(_patched("tome"), tmp_path)
    assert not (tmp_path / "tiny.onnx").exists()


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_export_leaves_no_output(name: signal.Signals, tmp_path: Path):
    checkpoint = save_tiny(_patched("tome"), tmp_path)
    output = tmp_path / "out.onnx"
    code = (
        "from pathlib import Path; from tmdeploy.export import *\n"
        f"request = ExportRequest(checkpoint=Path({str(checkpoint)!r}), output=Path({str(output)!r}), verify=False)\n"
        "export_checkpoint(request, progress=lambda stage: print(stage, flush=True))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "tracing" in line:
                break
        time.sleep(0.2)
        process.send_signal(name)
        process.wait()
    assert process.returncode != 0
    assert not output.exists()


def _metadata(proto: onnx.ModelProto) -> str:
    return next(entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY)
