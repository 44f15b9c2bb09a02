"""Calibration: of all predictions made with 80 % confidence, 80 % should be correct.

Expected calibration error (ECE) as in Guo et al. 2017 (arXiv 1706.04599): images in 15 bins of
equal width by confidence; the mean distance between confidence and accuracy, bins weighted by their
images. Temperature scaling, from the same paper, brings the two together.
"""

import copy
from collections.abc import Sequence

import numpy as np

from library.evaluation.confusion import Rows, row_chunks, weighted_sum

BINS = 15
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0


class CalibrationBins:
    """Each image's predictions in bins by confidence.

    An image with one class gives one prediction, its most likely class. Of a multi-label image,
    each class is a prediction, and correct if the image has that class.
    """

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Sort predictions into bins.

        Args:
            probabilities: Float (n, classes).
            labels: int64 (n,), or multi-hot (n, classes).
        """
        confidence, correct = probabilities, labels > 0.5
        if labels.ndim == 1:
            confidence = probabilities.max(1)[:, np.newaxis]
            correct = (probabilities.argmax(1) == labels)[:, np.newaxis]
        confidence = confidence.astype(np.float64)
        # The first bin holds its lower edge, too.
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        cells = (bins + BINS * np.arange(len(bins))[:, np.newaxis]).ravel()
        # Sums per image and bin, (n, BINS): of predictions, of confidence, of correct ones.
        self._sums = np.stack(
            [
                np.bincount(cells, values, minlength=len(bins) * BINS).reshape(-1, BINS)
                for values in (None, confidence.ravel(), correct.ravel())
            ]
        )

    @classmethod
    def join(cls, parts: Sequence["CalibrationBins"]) -> "CalibrationBins":
        """Return the bins of the images of all parts."""
        joined = copy.copy(parts[0])
        joined._sums = np.concatenate([each._sums for each in parts], axis=1)
        return joined

    def error(self, weights: np.ndarray) -> np.ndarray:
        """Return the ECE for weights (n, samples): float64 (samples,)."""
        count, confidence, correct = self._sums
        rows = np.concatenate([(confidence - correct).T, count.sum(1)[np.newaxis]])
        *distances, counts = weighted_sum(np.ascontiguousarray(rows), weights)
        return np.abs(distances).sum(0) / np.maximum(counts, 1)

    def to_json(self) -> list[dict]:
        """Return a dict for each bin that is not empty: edges, count, confidence, accuracy."""
        return [
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "guesses": round(count),
                "confidence": confidence / count,
                "accuracy": correct / count,
            }
            for number, (count, confidence, correct) in enumerate(self._sums.sum(1).T.tolist())
            if count
        ]


def fit_temperature(scores: Rows, labels: np.ndarray, rows: slice = slice(None)) -> float | None:
    """Return the temperature that makes the labels most likely, or None if there is no best one.

    The negative log-likelihood is convex in 1 / temperature: Newton's method between bounds. If all
    predictions are correct, it has no minimum: the lower the temperature, the better.

    Args:
        scores: Logits, float (n, classes).
        labels: int64 (n,), or multi-hot (n, classes).
        rows: The images to fit it to.
    """
    count = len(range(len(scores))[rows])
    if not count:
        return None
    moments = _sigmoid_moments if labels.ndim == 2 else _softmax_moments
    chunks = [*row_chunks(scores, rows)]
    wanted = sum(_true_scores(scores[some], labels[some]) for some in chunks) / count
    low, high, inverse = 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE, 1.0
    for _ in range(60):
        found = [moments(scores[some].astype(np.float64), inverse) for some in chunks]
        expected, variance = np.sum(found, axis=0) / count
        slope = expected - wanted
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / variance if variance > 0 else np.inf
        step = step if low < step < high else np.sqrt(low * high)
        if abs(step - inverse) < 1e-7 * inverse:
            break
        inverse = step
    return None if inverse > 0.999 / _MIN_TEMPERATURE else float(1 / inverse)


def _true_scores(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum of the scores of the images' own classes."""
    if labels.ndim == 2:
        return np.vecdot(scores.astype(np.float64), labels).sum()
    return np.take_along_axis(scores, labels[:, np.newaxis], 1).sum(dtype=np.float64)


def _softmax_moments(scores: np.ndarray, inverse: float) -> np.ndarray:
    """Return the sums over images of the scores' mean and of their variance under the softmax."""
    shares = np.exp((scores - scores.max(1, keepdims=True)) * inverse)
    shares /= shares.sum(1, keepdims=True)
    means = np.vecdot(shares, scores)
    distances = scores - means[:, np.newaxis]
    return np.array([means.sum(), np.vecdot(shares * distances, distances).sum()])


def _sigmoid_moments(scores: np.ndarray, inverse: float) -> np.ndarray:
    """Return the same under one sigmoid per class, summed over classes."""
    shares = 1 / (1 + np.exp(-np.clip(scores * inverse, -500, 500)))
    return np.array([(shares * scores).sum(), (shares * (1 - shares) * scores**2).sum()])
