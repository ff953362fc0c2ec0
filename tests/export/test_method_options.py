"""Every option of every method through export, compared with PyTorch, plans and sizes included."""

from __future__ import annotations

import itertools
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

import tmdeploy
from tests.export.exporting import export_module
from tests.vits import tiny_vit
from tmdeploy.methods import build_method, methods
from tmdeploy.patching import reduction_of

WITHOUT_CLASS_TOKEN = {"class_token": False, "pool": "avg", "fc_norm": True}


def _values(kind: object) -> tuple[object, ...]:
    return typing.get_args(kind) or (False, True)  # a Literal, or a bool


def _cases() -> list[tuple[str, dict[str, object]]]:
    """Every value of every option, in as few files as hold every weight with and without the log-size bias."""
    found: list[tuple[str, dict[str, object]]] = []
    for info in methods():
        values = {name: _values(kind) for name, kind in typing.get_type_hints(info.options).items()}
        pairs = list(itertools.product(values.get("weight", ()), values.get("prop_attn", ())))
        count = max([len(pairs), *map(len, values.values())], default=0)
        for number in range(count):
            row = {
                name: choices[(number if len(choices) > 2 else number // 2) % len(choices)]
                for name, choices in values.items()
            }
            if pairs:
                row["weight"], row["prop_attn"] = pairs[number % len(pairs)]
            found.append((info.name, row))
    return found


def test_the_cases_hold_every_value():
    seen = {(method, name, value) for method, row in _cases() for name, value in row.items()}
    for info in methods():
        for name, kind in typing.get_type_hints(info.options).items():
            assert {(info.name, name, value) for value in _values(kind)} <= seen


@pytest.mark.parametrize(("method", "chosen"), _cases(), ids=str)
def test_option_through_export(method: str, chosen: dict[str, object], tmp_path: Path):
    spec = build_method(method, chosen)
    score = getattr(spec.planner, "score", None)
    # mean pooling, without a class token where the method does without: sizes and new scores have their say
    changes = WITHOUT_CLASS_TOKEN if score is None or not score.needs_class_token else {"pool": "avg", "fc_norm": True}
    model = tiny_vit(depth=2, image_size=(48, 48), **changes)
    model = tmdeploy.patch(model, method, layers=[0, 1], options=chosen, **({"r": 8} if method == "tome" else {}))
    outputs = ("plan", "size") if spec.tracks_size else ("plan",)
    session = export_module(model, tmp_path, outputs=outputs)
    state = reduction_of(model)
    state.record = True
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    names = [entry.name for entry in session.get_outputs()]
    for amount in (None, 5):
        feeds = {"images": images.numpy()}
        if amount is not None:
            state.set_schedule([amount] * 2)
            feeds[spec.schedule_kind] = np.array([amount] * 2)
        got = dict(zip(names, session.run(None, feeds), strict=True))
        with torch.no_grad():
            expected = model(images).numpy()
        for step in state.steps:
            np.testing.assert_array_equal(got[f"block{step.block}/map"], step.map.numpy())
        np.testing.assert_allclose(got["logits"], expected, atol=1e-4)
        if spec.tracks_size:
            np.testing.assert_array_equal(got["size"], state.size.numpy())
            assert got["size"].sum(1).tolist() == [model.config.tokens] * 2
