"""Every method, every value of its options, through export: compared with PyTorch, plans and sizes included."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.export.exporting import export_module, save_tiny
from tests.methods.cases import CASES, DEFAULTS, LAYERS, PREFIXES, SIDE, Case, needs_class_token
from tests.vits import tiny_vit
from tmdeploy.backends import open_runner
from tmdeploy.card.metadata import METADATA_KEY, parse
from tmdeploy.patching import reduction_of

POOLED = {"pool": "avg", "fc_norm": True}  # so that sizes have their say


def _images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _changes(case: Case) -> dict[str, object]:
    """With a class token and without one by turns, where the method takes both."""
    without = not needs_class_token(case.spec) and CASES.index(case) % 2
    return {**POOLED, **PREFIXES[1]} if without else POOLED


@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_one_file_serves_every_schedule_and_batch_size(case: Case, tmp_path: Path):
    changes, spec = _changes(case), case.spec
    model = case.patched(changes)
    session = export_module(model, tmp_path, outputs=[*["plan"] * bool(spec.planner), *["size"] * spec.tracks_size])
    names = [entry.name for entry in session.get_outputs()]
    state = reduction_of(model)
    state.record = True
    tokens = model.config.tokens
    for batch, amounts in ((1, None), (3, [5, 2]), (2, case.nothing(tokens)), (8, [999, 1])):
        images = _images(batch)
        feeds = {"images": images.numpy()}
        if spec.schedule_kind is not None:
            state.set_schedule(amounts or state.recipe.amounts)
            feeds |= {} if amounts is None else {spec.schedule_kind: np.array(amounts)}
        got = dict(zip(names, session.run(None, feeds), strict=True))
        np.testing.assert_allclose(got["logits"], model(images).numpy(), atol=1e-4, err_msg=f"{batch} {amounts}")
        for step in state.steps:
            np.testing.assert_array_equal(got[f"block{step.block}/map"], step.map.numpy())
            np.testing.assert_array_equal(got[f"block{step.block}/index"], step.index.numpy())
        if spec.tracks_size:
            np.testing.assert_array_equal(got["size"], state.size.numpy())
        if amounts == case.nothing(tokens):
            plain = tiny_vit(depth=2, image_size=(SIDE, SIDE), **changes)
            np.testing.assert_allclose(got["logits"], plain(images).numpy(), atol=1e-4)


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_fixed_schedule_in_half_precision(case: Case, tmp_path: Path):
    model = case.patched()
    session = export_module(model, tmp_path, precision="fp16", runtime_schedule=False)
    assert session.get_overridable_initializers() == []
    images = _images(4)
    with torch.no_grad():
        expected = model(images).numpy()
    (got,) = session.run(None, {"images": images.numpy()})
    assert np.median(np.abs(got - expected)) < 0.02 * np.abs(expected).max()  # a plan may differ
    proto = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "tiny.onnx"))
    metadata = parse(next(one.value for one in proto.metadata_props if one.key == METADATA_KEY), path="tiny.onnx")
    assert (metadata.card.reduction.method, metadata.precision, metadata.card.reduction.layers) == (
        case.method,
        "fp16",
        LAYERS if case.spec.planner is not None else (),
    )
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    assert {types[step.signal] for step in metadata.steps if step.op == "TokenSelect"} <= {onnx.TensorProto.FLOAT}
    owned = [tensor for tensor in proto.graph.initializer if case.spec.owns(tensor.name.removeprefix("module."))]
    assert {tensor.data_type for tensor in owned} <= {onnx.TensorProto.FLOAT}  # what decides is not rounded


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_its_checkpoint_runs_as_saved(case: Case, tmp_path: Path):
    """The method's own weights come back with the model's."""
    model = case.patched()
    with torch.no_grad():
        expected = model(_images(2)).numpy()
    with open_runner(save_tiny(model, tmp_path)) as runner:
        np.testing.assert_array_equal(runner.infer(_images(2).numpy()), expected)
