"""The two statistics of a validation, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from tmdeploy.validate.agreement import accuracy, interval, sign_test


@pytest.mark.parametrize("images", [1, 2, 7, 24, 1000, 50_000])
def test_the_interval_is_wilsons(images: int) -> None:
    for hits in {0, 1, images // 3, images - 1, images}:
        expected = stats.binomtest(hits, images).proportion_ci(confidence_level=0.95, method="wilson")
        found = interval(hits, images)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert (found.share, found.images) == (hits / images, images)


@pytest.mark.parametrize("trials", [1, 2, 5, 30, 31, 400, 3001])
def test_the_p_value_is_the_exact_binomial_tests(trials: int) -> None:
    for fewer in {0, trials // 7, trials // 3, trials // 2 - (trials > 1), trials // 2}:
        expected = float(stats.binomtest(fewer, trials, 0.5).pvalue)
        assert sign_test(fewer, trials) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_a_p_value_without_differences_is_one() -> None:
    assert sign_test(0, 0) == 1.0


def test_accuracy_is_paired_by_image() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    reference = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 1, 0]]
    candidate = np.eye(2, dtype=np.float32)[[1, 1, 1, 0, 1, 1]]
    found = accuracy(reference, candidate, labels)
    assert (found.reference, found.candidate) == (5 / 6, 3 / 6)
    assert (found.only_reference, found.only_candidate, found.images) == (3, 1, 6)
    assert found.p_value == pytest.approx(0.625)
