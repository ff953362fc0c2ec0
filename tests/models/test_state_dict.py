from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from tests.models.weights import small_model, small_weights
from tmdeploy.errors import CheckpointError
from tmdeploy.models.state_dict import find_state_dict

HERE = Path("model.pt")
WEIGHTS = small_weights()


def found(held):
    weights, _ = find_state_dict(held, HERE)
    return weights


def test_a_plain_state_dict():
    assert found(OrderedDict(WEIGHTS)).keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    "key",
    ["model", "state_dict", "model_ema", "module", "ema", "state_dict_ema", "model_state_dict", "encoder", "teacher"],
)
def test_keys_that_training_code_uses(key):
    assert found({"epoch": 3, key: WEIGHTS, "optimizer": {"state": {}}}).keys() == WEIGHTS.keys()


def test_nested_keys():
    assert found({"state_dict": {"model": WEIGHTS}, "loss": torch.zeros(3)}).keys() == WEIGHTS.keys()


def test_the_model_comes_before_its_average_and_that_is_noted():
    average = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
    weights, notes = find_state_dict({"model_ema": average, "model": WEIGHTS}, HERE)
    assert torch.equal(weights["norm.bias"], WEIGHTS["norm.bias"])
    assert notes == ("the weights under 'model' are read, not those under 'model_ema': pass --ema to read those",)


def test_a_configuration_under_a_wanted_key_is_passed_over():
    assert found({"model": {"name": "deit"}, "state_dict": WEIGHTS}).keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "encoder.", "model.", "_orig_mod.", "module._orig_mod.", "student.backbone.", "x."],
)
def test_a_prefix_of_all_names_is_dropped(prefix):
    assert found({f"{prefix}{name}": tensor for name, tensor in WEIGHTS.items()}).keys() == WEIGHTS.keys()


def test_a_multi_scale_stem_does_not_confuse_the_prefix():
    weights = small_weights(scales=(16,))
    assert found({f"module.{name}": tensor for name, tensor in weights.items()}).keys() == weights.keys()


def test_a_prefix_of_some_names_is_explained():
    held = {f"backbone.{name}": tensor for name, tensor in WEIGHTS.items()} | {"neck.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"begin with 'backbone\.', but 1 others do not \(neck\.weight\)"):
        found(held)


def test_a_module_is_read_by_its_state_dict():
    assert found({"model": small_model()}).keys() == WEIGHTS.keys()
    assert found(small_model()).keys() == WEIGHTS.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32(dtype):
    weights = found({name: tensor.to(dtype) for name, tensor in WEIGHTS.items()})
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    torch.testing.assert_close(weights["norm.weight"], WEIGHTS["norm.weight"].to(dtype).float())


def test_parameters_and_views_become_plain_contiguous_tensors():
    weights = found({"a": torch.nn.Parameter(torch.randn(3, 4)), "b": torch.randn(3, 4).T})
    assert not weights["a"].requires_grad
    assert weights["b"].is_contiguous()


def test_counters_are_ignored():
    held = {**WEIGHTS, "epoch": 7, "bn.num_batches_tracked": torch.tensor(4), "flag": True, "nothing": None}
    assert found(held).keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([1, 2], "holds a list, not a state_dict"),
        (torch.zeros(3), "holds a Tensor, not a state_dict"),
        ({}, "has no state_dict; it holds nothing"),
        ({"epoch": 1, "loss": 0.5}, "has no state_dict; it holds 'epoch', 'loss'"),
        ({**WEIGHTS, "junk": [1]}, "'junk', between its weights, is a list, not a tensor"),
        ({**WEIGHTS, 3: torch.zeros(1)}, "names one of its weights 3"),
        ({**WEIGHTS, "w": torch.zeros(3, dtype=torch.int8)}, "'w' is of type int8"),
        ({**WEIGHTS, "w": torch.zeros(3, device="meta")}, "'w' is on the meta device"),
        ({**WEIGHTS, "w": torch.eye(3).to_sparse()}, "'w' is sparse or quantised"),
        ({**WEIGHTS, "w": torch.zeros(1).expand(1 << 40)}, "'w' is larger than what the file stores for it"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_no_state_dict_is_refused(held, message):
    with pytest.raises(CheckpointError) as caught:
        found(held)
    assert message in str(caught.value)
    assert str(caught.value).startswith("model.pt: ")


def test_a_dictionary_that_holds_itself_ends():
    held = {}
    held["model"] = held
    with pytest.raises(CheckpointError, match="has no state_dict"):
        found(held)


def averaged():
    return {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def prefixed(prefix, weights):
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "held",
    [
        {"state_dict": WEIGHTS, "state_dict_ema": averaged()},
        {"model": WEIGHTS, "model_ema": averaged()},
        {"model": WEIGHTS, "ema": prefixed("module.", averaged())},
        {"student": prefixed("backbone.", WEIGHTS), "teacher": prefixed("backbone.", averaged())},
        {"state_dict": prefixed("model.", WEIGHTS), "callbacks": {"EMA": {"decay": 0.9, "ema_state_dict": averaged()}}},
        {"state_dict": prefixed("model.", WEIGHTS), "callbacks": {"EMA{}": {"ema_weights": averaged()}, "Other": {}}},
        {"state_dict": {**prefixed("model.", WEIGHTS), **prefixed("model_ema.module.", averaged())}},
        {"state_dict": {**prefixed("base_encoder.", WEIGHTS), **prefixed("momentum_encoder.", averaged())}},
        {"state_dict": {**WEIGHTS, **prefixed("ema.", averaged())}},
        # Lightning's WeightAveraging
        {"state_dict": prefixed("model.", averaged()), "current_model_state": WEIGHTS, "averaging_state": {}},
    ],
    ids=["timm", "deit", "module", "dino", "callback", "weights", "in-one", "moco", "beside", "lightning"],
)
def test_averaged_weights_are_read_on_request_and_that_is_said(held):
    weights, notes = find_state_dict(held, HERE, ema=True)
    assert weights.keys() == WEIGHTS.keys()
    assert torch.equal(weights["norm.bias"], WEIGHTS["norm.bias"] + 1)
    assert any(note.startswith("the averaged weights under '") for note in notes)


def test_weights_that_are_not_averaged_are_not_passed_off_as_such():
    for held in (WEIGHTS, {"model": WEIGHTS}, {"state_dict": prefixed("model.", WEIGHTS), "callbacks": {"a": {}}}):
        with pytest.raises(CheckpointError, match=r"has no averaged \(EMA\) weights that tmdeploy knows. Leave --ema"):
            find_state_dict(held, HERE, ema=True)


def test_of_two_vits_in_one_dictionary_the_trained_one_is_read():
    held = {**prefixed("base_encoder.", WEIGHTS), **prefixed("momentum_encoder.", averaged())}
    weights, notes = find_state_dict(held, HERE)
    assert torch.equal(weights["norm.bias"], WEIGHTS["norm.bias"])
    assert notes == ("the weights under 'base_encoder.' are read, not those under 'momentum_encoder.'",)


def test_two_vits_of_equal_right_are_not_chosen_between():
    with pytest.raises(CheckpointError, match=r"holds the weights of 2 ViTs, under 'left\.', 'right\.'"):
        found({**prefixed("left.", WEIGHTS), **prefixed("right.", WEIGHTS)})


def test_weights_beside_the_vit_are_left_out_on_request():
    held = {**prefixed("backbone.", WEIGHTS), "neck.weight": torch.zeros(2), "neck.bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="--ignore-extra"):
        found(held)
    weights, notes = find_state_dict(held, HERE, ignore_extra=True)
    assert weights.keys() == WEIGHTS.keys()
    assert notes == ("left out, since they are not under 'backbone.': neck.weight, neck.bias",)


def test_many_names_for_one_stored_tensor_are_refused_before_they_are_copied():
    shared = torch.zeros(1 << 12, dtype=torch.float16)
    held = {**WEIGHTS, **{f"w{number}": shared for number in range(3000)}}
    with pytest.raises(CheckpointError, match=r"3\d\d\d tensors take 2\d MB, but share 0\.\d MB"):
        found(held)
    tied = {**WEIGHTS, "head2.weight": WEIGHTS["head.weight"]}
    assert found(tied).keys() == tied.keys()
