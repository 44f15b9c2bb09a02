"""Metrics that count correct, predicted and true images of each class.

`weights` are (n, samples): how often each image counts in each of several resamples. Metrics come
as (samples,), or (samples, classes). NaN marks what is undefined.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of a value per image, float or bool (n,), in each resample: (samples,)."""
    return values.astype(np.float64) @ weights / weights.sum(0, dtype=np.float64)


def in_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return whether each image's class is among the k with the highest scores: bool (n,).

    Of equal scores the first classes' count as higher, as in argmax.

    Args:
        scores: Float (n, classes).
        labels: int64 (n,).
        k: At least 1.
    """
    own = scores[np.arange(len(labels)), labels][:, np.newaxis]
    is_before = np.arange(scores.shape[1]) < labels[:, np.newaxis]
    return ((scores > own) | ((scores == own) & is_before)).sum(1) < k


def one_hot(labels: np.ndarray, class_count: int) -> np.ndarray:
    """Return bool (n, classes): True at each label."""
    return labels[:, np.newaxis] == np.arange(class_count)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """Return the number of images by true class (row) and predicted class (column).

    Args:
        labels: int64 (n,).
        predicted: int64 (n,).
        class_count: Number of classes.

    Returns:
        int64 (classes, classes).
    """
    pairs = np.bincount(labels * class_count + predicted, minlength=class_count**2)
    return pairs.reshape(class_count, class_count)


def confusion_cells(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """Return the cells of the confusion matrix that are not 0.

    Args:
        labels: int64 (n,).
        predicted: int64 (n,).
        class_count: Number of classes.

    Returns:
        int64 (cells, 3): true class, predicted class, images.
    """
    cells, images = np.unique(labels * class_count + predicted, return_counts=True)
    return np.stack([cells // class_count, cells % class_count, images], axis=1)


@dataclass(frozen=True)
class ClassCounts:
    """Images per resample and class, float64 (samples, classes).

    Metrics of a class without images (support 0) are NaN.
    """

    correct: np.ndarray
    predicted: np.ndarray
    support: np.ndarray

    @classmethod
    def count(cls, truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> Self:
        """Count images.

        Args:
            truth: bool (n, classes). If multi-label, any number of a row may be True.
            predicted: bool (n, classes), likewise.
            weights: (n, samples).
        """
        # float32 counts exactly up to 16,777,216.
        dtype = np.float32 if len(truth) < 2**24 // 255 else np.float64
        columns = weights.T.astype(dtype)
        counts = (columns @ each.astype(dtype) for each in (truth & predicted, predicted, truth))
        return cls(*(each.astype(np.float64) for each in counts))

    @property
    def precision(self) -> np.ndarray:
        """Share of the images predicted to be of the class that are; 0 if none was predicted."""
        return self._if_supported(_ratio(self.correct, self.predicted, 0.0))

    @property
    def recall(self) -> np.ndarray:
        """Share of the class's images that were predicted to be of it."""
        return self._if_supported(_ratio(self.correct, self.support, 0.0))

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall: 2 correct / (predicted + support)."""
        return self._if_supported(_ratio(2 * self.correct, self.predicted + self.support, 0.0))

    def _if_supported(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.support > 0, values, np.nan)


def macro_average(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes for which the metric is defined."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(1)
    return _ratio(total, defined.sum(1), np.nan)


def weighted_average(values: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return the mean over classes, each weighted by its number of images."""
    defined = ~np.isnan(values)
    shares = np.where(defined, support, 0.0)
    return _ratio((np.where(defined, values, 0.0) * shares).sum(1), shares.sum(1), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    result = np.full(np.shape(part), otherwise, np.float64)
    return np.divide(part, whole, out=result, where=whole > 0)
