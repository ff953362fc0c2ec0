"""What runners say about themselves, and what of it reaches a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import EXAMPLES
from tmdeploy.backends import open_runner
from tmdeploy.backends.facts import RunnerFacts


@pytest.mark.parametrize(
    ("given", "device", "gpu"),
    [
        ("cpu", "cpu", None),
        ("CPU", "cpu", None),
        ("cuda", "cuda:0", 0),
        ("CUDA:1", "cuda:1", 1),
        ("cuda:0", "cuda:0", 0),
    ],
)
def test_a_device_is_spelt_one_way(given: str, device: str, gpu: int | None):
    facts = RunnerFacts("b", "1", device=given)
    assert (facts.device, facts.gpu) == (device, gpu)
    assert facts == RunnerFacts("b", "1", device=device)


def test_a_report_leaves_out_what_is_not_known():
    assert RunnerFacts("mine", "1.2").described() == {
        "backend": "mine",
        "version": "1.2",
        "device": "cpu",
        "threads": "default",
    }


def test_a_provider_named_after_its_device_says_where_it_computes():
    assert "device" not in RunnerFacts("b", "1", provider="CPUExecutionProvider").described()
    on_gpu = RunnerFacts("b", "1", provider="CUDAExecutionProvider", device="cuda").described()
    assert (on_gpu["provider"], on_gpu["device"]) == ("CUDAExecutionProvider", "cuda:0")


def test_a_backend_may_put_it_in_its_own_words():
    facts = RunnerFacts("openvino", "1", device="CPU", in_reports={"device": "CPU", "threads": "-"})
    assert facts.device == "cpu"
    assert facts.described() == {"backend": "openvino", "version": "1", "device": "CPU", "threads": "-"}


def test_reports_of_the_backends(digits_onnx: Path):
    """What schema versions 1 of validation and bench promise: a change here is a change of those."""
    runtime, openvino = open_runner(digits_onnx, threads=1), open_runner(digits_onnx, backend="openvino")
    reference = open_runner(EXAMPLES / "digits_tome.pt", threads=1)
    expected = {
        "backend": "onnxruntime",
        "version": runtime.facts.version,
        "provider": "CPUExecutionProvider",
        "threads": "1",
        "method": "tome",
        "precision": "fp32",
        "lowering": runtime.facts.lowering,
    }
    assert runtime.facts.described() == expected
    assert openvino.facts.described() == {
        "backend": "openvino",
        "version": openvino.facts.version,
        "device": "CPU",
        "threads": "default",
        "precision": "fp32",
        "method": "tome",
        "lowering": openvino.facts.lowering,
    }
    assert reference.facts.described() == {
        "backend": "pytorch",
        "version": reference.facts.version,
        "device": "cpu",
        "mode": "eager, scaled_dot_product_attention",
        "precision": "fp32",
        "threads": "1",
        "method": "tome",
    }
    assert {runner.facts.device for runner in (runtime, openvino, reference)} == {"cpu"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "pytorch"])
def test_a_closed_runner_computes_nothing_and_still_says_what_it_was(backend: str, digits_onnx: Path):
    path = EXAMPLES / "digits_tome.pt" if backend == "pytorch" else digits_onnx
    with open_runner(path, backend=backend) as runner:
        height, width = runner.preprocessing.image_size
        images = np.zeros((1, 3, height, width), np.float32)
        runner.infer(images)
    runner.close()
    assert runner.facts.backend == backend
    with pytest.raises(AttributeError):
        runner.infer(images)
