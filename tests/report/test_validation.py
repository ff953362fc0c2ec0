import pytest

from tmdeploy.report.tables.validation import _who


@pytest.mark.parametrize(
    ("described", "shown"),
    [
        ({"backend": "openvino", "version": "2026.4", "precision": "bf16"}, "openvino 2026.4, bf16"),
        ({"backend": "onnxruntime", "version": "1.31", "precision": "fp32"}, "onnxruntime 1.31"),
        ({"backend": "onnxruntime", "version": "1.31"}, "onnxruntime 1.31"),
    ],
)
def test_a_precision_other_than_fp32_is_in_the_header(described: dict[str, str], shown: str):
    assert _who(described) == shown
