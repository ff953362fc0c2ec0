"""Level 3: logits, top-k agreement, divergence of the distributions, and accuracy where labels are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# scipy.stats has both formulas below, and is 110 MB of a container image; tests compare with it.
_Z = 1.959963984540054  # of 95 %, two-sided


@dataclass(frozen=True)
class Interval:
    """A share of the images with its 95 % Wilson interval."""

    share: float
    low: float
    high: float
    images: int


def hits(reference: Array, candidate: Array, k: int) -> NDArray[np.bool_]:
    """Whether each image's reference top-1 is in the candidate's top-k.

    Args:
        reference: [images, classes].
        candidate: [images, classes]; NaN is no hit.
        k: Clipped to the number of classes.

    Returns:
        [images].
    """
    k = min(k, candidate.shape[1])
    top = np.argsort(-candidate, axis=1, kind="stable")[:, :k]
    found: NDArray[np.bool_] = (top == reference.argmax(1)[:, None]).any(1) & ~np.isnan(candidate).any(1)
    return found


def interval(hits: int, images: int) -> Interval:
    """A share of images with its 95 % Wilson interval."""
    share = hits / images
    centre = share + _Z**2 / (2 * images)
    spread = _Z * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2))
    scale = 1 + _Z**2 / images
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return Interval(share, 0.0 if hits == 0 else low, 1.0 if hits == images else high, images)


def kl_divergence(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """KL(reference || candidate) of the softmax distributions of each image, nats: [images]."""
    p, q = _log_softmax(reference), _log_softmax(candidate)
    divergence: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=1)
    return np.maximum(divergence, 0.0)  # rounding can leave it a little below; NaN stays NaN


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of both models on the labelled images, and McNemar's exact test of the difference.

    Attributes:
        reference: Share right.
        candidate: Share right.
        images: Labelled images.
        only_reference: Images only the reference has right.
        only_candidate: Images only the candidate has right.
        p_value: p-value of the two-sided exact test of equal accuracy.
    """

    reference: float
    candidate: float
    images: int
    only_reference: int
    only_candidate: int
    p_value: float


def accuracy(reference: Array, candidate: Array, labels: NDArray[np.int64]) -> Accuracy:
    """Compare top-1 accuracy, paired by image.

    Args:
        reference: [images, classes].
        candidate: [images, classes].
        labels: [images].
    """
    right_ours, right_theirs = reference.argmax(1) == labels, candidate.argmax(1) == labels
    only_ours, only_theirs = int((right_ours & ~right_theirs).sum()), int((right_theirs & ~right_ours).sum())
    differ = only_ours + only_theirs
    return Accuracy(
        float(right_ours.mean()),
        float(right_theirs.mean()),
        len(labels),
        only_ours,
        only_theirs,
        sign_test(min(only_ours, only_theirs), differ),
    )


def sign_test(fewer: int, trials: int) -> float:
    """Two-sided exact p-value of `fewer` or less of `trials` fair coin tosses, on either side; 1 without any toss.

    Args:
        fewer: At most half of `trials`.
        trials: At least 0.
    """
    tail = term = 1
    for k in range(fewer):
        term = term * (trials - k) // (k + 1)
        tail += term
    # Python's integers are exact and their quotient is rounded once, also where both are too large for a float
    return min(1.0, 2 * tail / (1 << trials))


def _log_softmax(logits: Array) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return result
