"""What torch.onnx.export alone does to a model that merges with scatter_reduce(mean), and what tmdeploy does."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import tmdeploy
from tests.export.exporting import export_module
from tests.vits import tiny_images, tiny_vit
from tmdeploy.patching import reduction_of


class ScatterMean(nn.Module):
    """ToMe's default merge: tokens at even positions into the odd ones, by scatter_reduce(mean)."""

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        target = x[:, 1::2]
        return target.scatter_reduce(1, index[..., None].expand_as(x[:, ::2]), x[:, ::2], reduce="mean")


@pytest.mark.filterwarnings("ignore")
def test_torch_alone_is_silently_wrong(tmp_path):
    """If this fails, torch has mended it: good news for docs/methods.md, and the end of this test."""
    x, index = torch.randn(1, 8, 3), torch.tensor([[0, 0, 1, 2]])
    path = tmp_path / "scatter.onnx"
    torch.onnx.export(ScatterMean(), (x, index), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    (got,) = session.run(None, dict(zip(names, (x.numpy(), index.numpy()), strict=True)))
    assert np.abs(got - ScatterMean()(x, index).numpy()).max() > 0.1


def test_tmdeploy_exports_the_same_merge_right(tmp_path):
    model = tmdeploy.patch(tiny_vit(), "tome", r=8, options={"weight": "mean", "prop_attn": False})
    state = reduction_of(model)
    state.record = True
    images = tiny_images()
    with torch.no_grad():
        expected = model(images)

    # the reduction is that scatter_reduce: same tokens, same numbers
    step = state.steps[0]
    merged = step.x_in.new_zeros(3, step.x_out.shape[1], 48)
    slot = step.map.long()[..., None].expand_as(step.x_in)
    merged = merged.scatter_reduce(1, slot, step.x_in, reduce="mean", include_self=False)
    torch.testing.assert_close(step.x_out, merged)

    session = export_module(model, tmp_path)
    (got,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)
