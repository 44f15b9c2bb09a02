"""How many predictions are made, and how many are right, at each probability threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from library.evaluation.confusion import row_chunks
from library.evaluation.predictions import Predictions

# Thresholds 0, 0.01, …, 1.
_THRESHOLDS = 101
# More classes than this would make the page large; those with the most images are shown.
MAX_CLASSES = 100


@dataclass(frozen=True)
class ThresholdCurve:
    """Counts for the thresholds 0, 0.01, …, 1.

    Precision is correct / predicted, recall is correct / positives.

    Attributes:
        name: What is predicted.
        positives: Number of images that should be predicted.
        predicted: Number of images whose probability is at least each threshold.
        correct: Number of those that are right.
    """

    name: str
    positives: int
    predicted: list[int]
    correct: list[int]


def make_threshold_curves(
    predictions: Predictions, classes: Sequence[str]
) -> tuple[ThresholdCurve | None, list[ThresholdCurve]]:
    """Return the curve of the answer, and one for each class against all others.

    Args:
        predictions: Of n images.
        classes: Class names in label order.

    Returns:
        (curve, curves). The answer is an image's class with the highest probability; below the
        threshold it is `unknown`. It is None for multi-label predictions, which have no single
        answer. A class that no image has gets no curve.
    """
    truth, multi_label = predictions.labels, predictions.multi_label
    counts = (truth > 0.5).sum(0) if multi_label else np.bincount(truth, minlength=len(classes))
    largest = np.sort(np.argsort(-counts, kind="stable")[:MAX_CLASSES])
    best, columns = (
        np.empty(len(truth), np.float32),
        np.empty((len(truth), len(largest)), np.float32),
    )
    for rows in row_chunks(predictions.scores):
        probabilities = predictions.probabilities(rows)
        best[rows], columns[rows] = probabilities.max(1), probabilities[:, largest]
    curves = []
    for n, probabilities in zip(largest.tolist(), columns.T, strict=True):
        is_member = truth[:, n] > 0.5 if multi_label else truth == n
        if counts[n]:
            curves.append(_make_curve(classes[n], probabilities, is_member, int(counts[n])))
    if multi_label:
        return None, curves
    return _make_curve("the answer", best, predictions.classes == truth, len(truth)), curves


def _make_curve(
    name: str, probabilities: np.ndarray, is_right: np.ndarray, positives: int
) -> ThresholdCurve:
    """Return a curve of n probabilities, float (n,), and whether each is right, bool (n,)."""
    # In float32 as the probabilities are, so that 0.07 is at least 0.07.
    thresholds = np.linspace(0, 1, _THRESHOLDS).astype(np.float32)

    def count(values: np.ndarray) -> list[int]:
        below = np.searchsorted(np.sort(values), thresholds, side="left")
        return (len(values) - below).tolist()

    return ThresholdCurve(name, positives, count(probabilities), count(probabilities[is_right]))
