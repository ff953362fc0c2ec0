import numpy as np
import pytest

from tmdeploy.validate import Limits

LOGITS = np.array([[2.0, -8.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("precision", "atol", "op_rtol", "tie_gap", "max_ties", "min_top1"),
    [
        ("fp32", 1e-4, 1e-5, 1e-5, 0.05, 0.995),
        ("fp16", 0.16, 2e-3, 5e-3, 0.5, 0.995),
        ("int8", 0.8, 1e-5, 5e-2, 1.0, 0.98),
        ("fp8", 1.6, 1e-5, 1e-1, 1.0, 0.98),
        ("int8+fp16", 0.8, 2e-3, 5e-2, 1.0, 0.98),
        ("tf32", 0.16, 2e-3, 5e-3, 0.5, 0.995),
        ("bf16", 0.8, 1e-2, 2e-2, 1.0, 0.995),
    ],
)
def test_defaults_of_a_precision(
    precision: str, atol: float, op_rtol: float, tie_gap: float, max_ties: float, min_top1: float
):
    limits = Limits().for_precision(precision, LOGITS)
    assert (limits.op_rtol, limits.tie_gap, limits.max_ties, limits.min_top1) == (op_rtol, tie_gap, max_ties, min_top1)
    assert limits.atol == pytest.approx(atol)


def test_what_was_given_wins():
    given = Limits(atol=0.5, op_rtol=0.25, tie_gap=0.125, signal_rtol=2.0, max_ties=0.0, min_top1=1.0, min_p=0.5)
    limits = given.for_precision("int8", LOGITS)
    assert vars(limits) == vars(given)
