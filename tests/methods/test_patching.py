"""Every method as `patch` carries it out, by what its spec says."""

import pytest
import torch
from torch import Tensor

import tmdeploy
from tests.methods.cases import CASES, DEFAULTS, INFOS, LAYERS, LEARNED, SIDE, Case, needs_class_token, values_of
from tests.vits import tiny_vit
from tmdeploy.errors import UnsupportedModel
from tmdeploy.methods.spec import Leftover, Metric, ReduceMode, Score, Select, Weight
from tmdeploy.patching import reduction_of, unpatch
from tmdeploy.patching.signals import METRICS, SCORES

TOKENS = (SIDE // 8) ** 2


def _images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_the_cases_hold_every_value():
    seen = {(case.method, name, value) for case in CASES for name, value in case.options}
    for info in INFOS:
        for name, values in values_of(info).items():
            assert {(info.name, name, value) for value in values} <= seen


def test_every_shared_signal_has_its_function():
    assert set(METRICS) == set(Metric)
    assert set(SCORES) == set(Score)


@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_steps(case: Case):
    """Token counts, plans, prefix and sizes, of every kind of model that the method takes."""
    for changes in case.prefixes:
        model = case.patched(changes)
        state, prefix = reduction_of(model), model.num_prefix_tokens
        state.record = True
        images = _images()
        logits = model(images)
        assert logits.isfinite().all()
        expected = state.recipe.steps(TOKENS + prefix, prefix)
        assert [(s.block, s.x_in.shape[1], s.x_out.shape[1]) for s in state.steps] == [
            (s.block, s.tokens_in, s.tokens_out) for s in expected
        ]
        assert bool(state.steps) == (case.spec.planner is not None)
        for step in state.steps:
            _check_plan(case, step.map.long(), step.index.long(), step.x_in, step.x_out, prefix)
        if case.spec.tracks_size:
            assert state.size.sum(1).tolist() == pytest.approx([TOKENS + prefix] * 2)
            assert state.size[:, :prefix].eq(1).all()
        else:
            assert state.size is None
        if state.steps:
            plain = tiny_vit(depth=2, image_size=(SIDE, SIDE), **changes)
            assert not torch.allclose(logits, plain(images), atol=1e-3)


def _check_plan(case: Case, plan: Tensor, index: Tensor, x_in: Tensor, x_out: Tensor, prefix: int) -> None:
    slots = index.shape[1]
    first = torch.arange(prefix).expand(len(plan), prefix)
    assert torch.equal(plan[:, :prefix], first)
    assert torch.equal(index[:, :prefix], first)
    torch.testing.assert_close(x_out[:, :prefix], x_in[:, :prefix])
    assert int(plan.min()) >= -1
    assert int(plan.max()) < slots
    planner = case.spec.planner
    dropped = isinstance(planner, Select) and planner.leftover is Leftover.DROP
    for image_plan, anchors in zip(plan, index, strict=True):
        anchored = anchors >= 0
        assert torch.equal(image_plan[anchors[anchored]], torch.arange(slots)[anchored])
        assert int((~anchored).sum()) == int(case.spec.fuses)  # the fused slot has none, and is the last
        assert anchored[: slots - case.spec.fuses].all()
        assert (int((image_plan < 0).sum()) == len(image_plan) - slots) if dropped else (image_plan >= 0).all()


@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_nothing_removed_is_the_plain_model(case: Case):
    images = _images()
    for changes in case.prefixes[:2]:
        plain = tiny_vit(depth=2, image_size=(SIDE, SIDE), **changes)
        model = case.patched(changes, amount=case.nothing(TOKENS)[0])
        torch.testing.assert_close(model(images), plain(images), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_gradients_flow(case: Case):
    model = case.patched().train()
    model(_images()).square().sum().backward()
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0
    if case.spec.weight is Weight.SCORE:  # the reduce hands it on to the score
        for part in reduction_of(model).parts.values():
            assert all(weight.grad.abs().sum() > 0 for weight in part.parameters())


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
@torch.no_grad()
def test_half_precision_follows_the_schedule(case: Case):
    model = case.patched()
    state = reduction_of(model)
    counts = [(step.tokens_in, step.tokens_out) for step in state.recipe.steps(TOKENS + 1, 1)]
    model.half()
    state.record = True
    logits = model(_images().half())
    assert logits.dtype == torch.float16
    assert [(s.x_in.shape[1], s.x_out.shape[1]) for s in state.steps] == counts
    assert all(step.signal.dtype == torch.float32 or step.op == "TokenMatch" for step in state.steps)


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_a_score_of_the_class_token_needs_one(case: Case):
    model = tiny_vit(depth=2, image_size=(SIDE, SIDE), class_token=False, pool="avg", fc_norm=True)
    if needs_class_token(case.spec):
        with pytest.raises(UnsupportedModel, match=rf"'{case.method}' scores .*=cls.*score=received .*score=key_norm"):
            tmdeploy.patch(model, case.method, layers=LAYERS)
    else:
        tmdeploy.patch(model, case.method, **case.amount(7))


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
@torch.no_grad()
def test_unpatch_restores(case: Case):
    images, plain = _images(), tiny_vit(depth=2, image_size=(SIDE, SIDE))
    names, before = list(plain.state_dict()), plain(images)
    tmdeploy.patch(plain, case.method, options=dict(case.options), **case.amount(7))
    assert [name for name in plain.state_dict() if not case.spec.owns(name)] == names
    assert torch.equal(unpatch(plain)(images), before)
    assert list(plain.state_dict()) == names


@pytest.mark.parametrize("case", LEARNED, ids=str)
@torch.no_grad()
def test_a_learned_part_is_kept_and_loaded(case: Case):
    model, images = case.patched(), _images()
    parts, trained = dict(reduction_of(model).parts), model(images)
    assert set(parts) == {
        signal.name_of(step, block) for step, block in enumerate(LAYERS) for signal in case.spec.custom_signals
    }
    assert all(case.spec.owns(f"{name}.weight") and model.get_submodule(name) is part for name, part in parts.items())
    again = tmdeploy.patch(model, case.method, **case.amount(7))
    assert all(part is parts[name] for name, part in reduction_of(again).parts.items())  # an optimiser may hold them
    torch.testing.assert_close(again(images), trained)
    fresh = case.patched()
    for part in reduction_of(fresh).parts.values():
        for weight in part.parameters():
            weight.zero_()
    assert not torch.equal(fresh(images), trained)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(images), trained)


@pytest.mark.parametrize("case", LEARNED, ids=str)
def test_a_refused_patch_leaves_learned_parts_as_they_are(case: Case):
    model = case.patched()
    parts = dict(reduction_of(model).parts)
    signal = case.spec.custom_signals[0]
    name = signal.name_of(0, LAYERS[0])
    owner, _, last = name.rpartition(".")
    model.get_submodule(owner)._modules[last] = torch.nn.Linear(3, 3)
    with pytest.raises(UnsupportedModel, match=rf"the module has a part {name}, whose weights do not fit .*missing"):
        tmdeploy.patch(model, case.method, **case.amount(5))
    assert isinstance(model.get_submodule(name), torch.nn.Linear)
    assert reduction_of(model).parts == parts


def test_an_anchor_that_is_kept_alone_is_copied():
    """ReduceMode.ANCHOR: tokens that stay are what they were."""
    for case in CASES:
        if case.spec.mode is not ReduceMode.ANCHOR:
            continue
        model = case.patched()
        state = reduction_of(model)
        state.record = True
        model(_images())
        for step in state.steps:
            anchors = step.index.long()[..., None].expand(-1, -1, step.x_in.shape[-1])
            assert torch.equal(step.x_out, step.x_in.gather(1, anchors))
